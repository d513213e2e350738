"""Text that ranks shapes is refused if the evaluation reads it too."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.base import HUB
from prunus.data.config import DataConfig, Source
from prunus.errors import RecipeError
from prunus.pipeline.search.contamination import check_apart
from prunus.steps.evaluate.config import EvaluateConfig


def file_of(folder: Path, name: str, *texts: str) -> str:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(file)


def check(text: list[str], corpus: str, held_out: str | None = None, **tasks: Any) -> None:
    data = DataConfig(corpus=(Source(path=corpus),), held_out=(Source(path=held_out),) if held_out else ())
    check_apart([Source(path=path) for path in text], data, EvaluateConfig(tasks=tasks), HUB)


def test_texts_without_a_common_document_are_accepted(tmp_path: Path) -> None:
    corpus, ranking = file_of(tmp_path, "a", "plum", "cherry"), file_of(tmp_path, "b", "almond")
    check([ranking], corpus, file_of(tmp_path, "c", "tree"))
    check([], corpus, file_of(tmp_path, "c", "tree"))
    check([], corpus)  # one corpus, from which both parts are set aside


def test_the_same_source_is_refused_by_its_option(tmp_path: Path) -> None:
    corpus, held_out = file_of(tmp_path, "a", "plum"), file_of(tmp_path, "c", "tree")
    link = tmp_path / "link.jsonl"
    link.symlink_to(held_out)
    for path in (held_out, str(link)):
        with pytest.raises(RecipeError, match=r"search.text.0: the evaluation reads .* too \(data.held_out.0\)"):
            check([path], corpus, held_out)
    with pytest.raises(RecipeError, match=r"too \(data.corpus.0, of which a part is held out\)"):
        check([corpus], corpus)
    with pytest.raises(RecipeError, match=r"search.text.1: .* too \(evaluate.tasks.rag\)"):
        check(
            [corpus, file_of(tmp_path, "d", "x")], file_of(tmp_path, "e", "y"), held_out, rag=str(tmp_path / "d.jsonl")
        )


def test_a_common_document_is_refused_whatever_space_is_around_it(tmp_path: Path) -> None:
    corpus, held_out = file_of(tmp_path, "a", "plum"), file_of(tmp_path, "c", "tree", "cherry")
    with pytest.raises(RecipeError, match=r"^search.text and the evaluation's text share a document: 'cherry'"):
        check([file_of(tmp_path, "b", "almond", " cherry\n")], corpus, held_out)


def test_a_document_of_the_part_that_is_set_aside_is_refused(tmp_path: Path) -> None:
    """The part that ranks is a fiftieth of the corpus: of 400 documents some are in it."""
    texts = [f"plum {number}" for number in range(400)]
    corpus, held_out = file_of(tmp_path, "a", *texts), file_of(tmp_path, "c", *texts)
    with pytest.raises(RecipeError, match=r"^data.corpus, of which a part is set aside for the search, and the eval"):
        check([], corpus, held_out)


def test_splits_of_the_generated_world_share_nothing() -> None:
    data = DataConfig(
        corpus=(Source(path="builtin:world"),), held_out=(Source(path="builtin:world", split="held_out"),)
    )
    check_apart([], data, EvaluateConfig(), HUB)
    with pytest.raises(RecipeError, match=r"search.text.0: the evaluation reads builtin:world too \(data.held_out.0\)"):
        check_apart([Source(path="builtin:world", split="held_out")], data, EvaluateConfig(), HUB)
