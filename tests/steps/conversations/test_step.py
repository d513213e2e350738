"""Chat data as a stream, every row of which is fit to learn from."""

import io
import json
import shutil
from pathlib import Path

import pytest

from prunus.console import Console
from prunus.data.judged import Judged
from prunus.data.template import PLAIN
from prunus.data.tokens import Tokens
from prunus.errors import DataError, ModelError
from prunus.models.pretrained import load_tokenizer
from tests.steps.align.making import read, rows, write


def texts(model: Path, out: Path) -> list[tuple[str, str]]:
    """Each document, and what of it the assistant says."""
    tokenizer, tokens = load_tokenizer(model), Tokens.open(out)
    found = []
    for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        ids = tokens.ids[start:end]
        found.append((tokenizer.decode(ids), tokenizer.decode(ids[tokens.loss_mask(start, end - start)])))
    return found


def test_conversations(teacher: Path, tmp_path: Path) -> None:
    given = rows(300, "answers")
    found = texts(teacher, read(teacher, write(tmp_path / "x.jsonl", given), tmp_path / "out"))
    for row, (whole, said) in zip(given, found, strict=True):
        assert whole == f"<s>User: {row['prompt']}\nAssistant: {row['completion']}</s>\n"
        assert said == f" {row['completion']}</s>"
    assert not (tmp_path / "out" / "judged.npz").exists()


def test_pairs_stand_side_by_side(teacher: Path, tmp_path: Path) -> None:
    given = rows(5, "rewards")
    out = read(teacher, write(tmp_path / "x.jsonl", given), tmp_path / "out", wanted="rewards")
    said = [answer for _, answer in texts(teacher, out)]
    assert said == [f" {row[name]}</s>" for row in given for name in ("chosen", "rejected")]
    judged = Judged.open(out)
    assert judged.rewards.tolist() == [row[f"{name}_reward"] for row in given for name in ("chosen", "rejected")]
    assert judged.pairs().tolist() == [[2 * i, 2 * i + 1] for i in range(5)]
    assert judged.measured
    assert not Judged.open(read(teacher, tmp_path / "x.jsonl", tmp_path / "pairs", wanted="pairs")).measured


def test_labels_and_attributes(teacher: Path, tmp_path: Path) -> None:
    out = read(teacher, write(tmp_path / "x.jsonl", rows(6, "labels")), tmp_path / "labels", wanted="labels")
    assert Judged.open(out).rewards.tolist() == [0, 1] * 3
    out = read(teacher, write(tmp_path / "y.jsonl", rows(2, "attributes")), tmp_path / "b", wanted="attributes")
    assert texts(teacher, out)[1][0].startswith("<s>System: Attributes: plums: 1\nUser: ")


@pytest.mark.parametrize(
    ("form", "wanted", "message"),
    [
        ("answers", "pairs", "row 1: chosen and rejected are missing"),
        ("pairs", "rewards", "row 1: chosen_reward and rejected_reward are missing"),
        ("answers", "labels", "row 1: label is missing"),
        ("answers", "attributes", "row 1: attributes is missing"),
    ],
)
def test_what_a_method_cannot_use_is_refused(teacher, tmp_path, form, wanted, message) -> None:
    with pytest.raises(DataError, match=f"data.chat.0: .*x.jsonl, {message}"):
        read(teacher, write(tmp_path / "x.jsonl", rows(3, form)), tmp_path / "out", wanted=wanted)


def test_pairs_that_the_template_makes_equal_are_refused(teacher: Path, tmp_path: Path) -> None:
    given = [*rows(2, "pairs"), {"prompt": "plum?", "chosen": "yes", "rejected": "yes "}]
    trimming = PLAIN.replace("' ' + message.content", "' ' + message.content | trim")
    with pytest.raises(DataError, match="row 3: chosen and rejected are equal after rendering"):
        read(teacher, write(tmp_path / "x.jsonl", given), tmp_path / "out", wanted="pairs", template=trimming)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="empty.jsonl"):
        read(teacher, tmp_path / "empty.jsonl", tmp_path / "none")


def test_what_is_too_long_is_refused_or_dropped(teacher: Path, tmp_path: Path) -> None:
    given = rows(6, "pairs")
    given[3]["rejected"] = "plum " * 200
    file = write(tmp_path / "x.jsonl", given)
    options = {"wanted": "pairs", "sequence_length": 64}
    with pytest.raises(
        DataError, match=r"row 4: 4\d\d tokens are more than sequence_length: 64; allowed: .*longer: drop"
    ):
        read(teacher, file, tmp_path / "out", **options)
    tokens = Tokens.open(read(teacher, file, tmp_path / "dropped", longer="drop", **options))
    assert len(tokens.ends) == 10
    with pytest.raises(DataError, match="none left: all 6 are longer than 5 tokens"):
        read(teacher, file, tmp_path / "none", longer="drop", wanted="pairs", sequence_length=5)


UNENDED = PLAIN.replace("{{ eos_token or '\\n' }}", "{{ 'x' }}")


def test_answers_that_never_end_are_refused(teacher: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", rows(3, "answers"))
    with pytest.raises(DataError, match="none of the 3 answers ends with an end token \\('</s>'\\)"):
        read(teacher, file, tmp_path / "out", template=UNENDED)
    other = shutil.copytree(teacher, tmp_path / "other")
    for name in ("generation_config.json", "config.json"):  # a model that another token ends, by one file of the two
        found = json.loads((other / name).read_text())
        x = load_tokenizer(other).convert_tokens_to_ids("x")
        (other / name).write_text(json.dumps({**found, "eos_token_id": [x]}))
        read(other, file, tmp_path / name, template=UNENDED)
        (other / name).write_text(json.dumps(found))
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": "x"}))
    with pytest.raises(ModelError, match="eos_token_id is 'x'; expected an id, or a list of ids"):
        read(other, file, tmp_path / "none")


def test_unused_columns_and_missing_ends_are_reported(teacher: Path, tmp_path: Path) -> None:
    told = io.StringIO()
    given = [{**row, "id": i} for i, row in enumerate(rows(2, "answers"))]
    turns = [{"role": role, "content": "plum"} for role in ("user", "assistant", "user", "assistant")]
    file = write(tmp_path / "x.jsonl", [*given, {"messages": turns, "topic": "fruit"}])
    last = PLAIN.replace("{{ eos_token or '\\n' }}", "{{ eos_token if loop.last else 'x' }}")
    read(teacher, file, tmp_path / "out", template=last, console=Console(file=told))
    assert "x.jsonl: unused columns: id, topic" in told.getvalue()
    assert "1 of 4 answers do not end with an end token ('</s>')" in told.getvalue()
