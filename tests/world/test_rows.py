from itertools import islice

import pytest

from prunus.config import parse
from prunus.data.config import Source
from prunus.data.documents import check_source, documents
from prunus.data.sources import Reader, source_fingerprint
from prunus.errors import DataError, RecipeError
from prunus.world.config import SKILLS, WorldConfig
from prunus.world.rows import rows

SMALL = WorldConfig(documents=6, conversations=8, held_out_items=3)


def test_rows_of_each_configuration_and_split() -> None:
    assert [set(row) for row in rows(SMALL, None, "train")] == [{"text"}] * 6
    assert len(list(rows(SMALL, "stories", "held_out"))) == 3
    assert list(rows(SMALL, "stories", "train")) == list(rows(SMALL, None, "train"))
    assert all(row["text"].startswith("Sing ") for row in rows(SMALL, "chants", "train"))
    assert [set(row) for row in rows(SMALL, "chat", "train")] == [{"text", "messages", "tools", "skill", "check"}] * 8
    held_out = list(rows(SMALL, "chat", "held_out"))
    assert [row["skill"] for row in held_out] == [skill for skill in SKILLS for _ in range(3)]
    assert all(row["messages"][-1]["role"] == "assistant" for row in held_out)


def test_it_is_a_source_that_resumes_where_it_was() -> None:
    source = Source(path="builtin:world", name="chat", world=SMALL)
    texts = list(documents(source, "x"))
    assert texts == [row["text"] for row in rows(SMALL, "chat", "train")]
    reader = Reader(source, "x")
    assert list(islice(reader.documents(), 3)) == texts[:3]
    assert list(Reader(source, "x", reader.state).documents()) == texts[3:]


def test_fingerprints_tell_worlds_apart() -> None:
    default, split = (Source(path="builtin:world", split=split) for split in ("train", "held_out"))
    assert source_fingerprint(default, "x") != source_fingerprint(split, "x")
    hard = Source(path="builtin:world", world=WorldConfig(difficulty="hard"))
    assert hard.identity() != default.identity()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "chta"},
            r"x.name: builtin:world has no 'chta' \(did you mean `chat`\?\); it has: stories, chants, chat",
        ),
        ({"split": "heldout"}, r"x.split: builtin:world has no 'heldout' \(did you mean `held_out`\?\)"),
    ],
)
def test_what_the_world_does_not_have(options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_source(Source(path="builtin:world", **options), "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"difficulty": "meduim"},
            r"difficulty: unknown 'meduim' \(did you mean `medium`\?\); allowed: easy, medium, hard",
        ),
        (
            {"mixture": {"ragg": 1}},
            r"world.mixture: unknown skill 'ragg' \(did you mean `rag`\?\); allowed: instruction_",
        ),
        ({"mixture": {"rag": 0}}, "every skill has a share of 0"),
        ({"mixture": {"rag": -1}}, "world.mixture.rag: expected at least 0"),
        ({"turns": 0}, "world.turns: expected at least 1"),
    ],
)
def test_worlds_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(Source, {"path": "builtin:world", "world": options}, "data.corpus.0")
