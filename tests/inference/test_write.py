"""Answers to many prompts: each is generated once, and only those that are not stored yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunus.inference import local
from prunus.inference.answers import Answer, AnswerStore
from prunus.inference.config import GenerationOptions
from prunus.inference.prompts import Prompt
from prunus.inference.write import write_all

BATCHES = [[Prompt(number, [number], "") for number in batch] for batch in ((0, 1), (2, 3), (4,))]


class Counted:
    """In place of the progress line: the numbers that it was given."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def update(self, count: int) -> None:
        self.counts.append(count)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The batches that are generated, as prompts' numbers."""
    batches: list[list[int]] = []

    def answers(todo: list[list[Prompt]], *_: Any) -> Iterator[tuple[int, Answer]]:
        for batch in todo:
            batches.append([prompt.number for prompt in batch])
            for prompt in batch:
                yield prompt.number, Answer([prompt.number], f"answer {prompt.number}", "stop")

    monkeypatch.setattr(local, "answers", answers)
    return batches


def write(store: AnswerStore, model: Any = object) -> list[int]:
    progress = Counted()
    write_all(BATCHES, GenerationOptions(max_new_tokens=4), model, None, store, progress)  # type: ignore[arg-type]
    return progress.counts


def no_model() -> Any:
    raise AssertionError("the model was loaded")


def test_every_prompt_is_answered_once(tmp_path: Path, seen: list[list[int]]) -> None:
    assert write(AnswerStore(tmp_path)) == [1, 2, 3, 4, 5]
    assert seen == [[0, 1], [2, 3], [4]]
    stored = AnswerStore(tmp_path)
    assert [stored.read(number).text for number in range(5)] == [f"answer {number}" for number in range(5)]
    assert write(stored, no_model) == []
    assert len(seen) == 3


@pytest.mark.parametrize("done", [(0,), (2, 3), (1, 4), (0, 1, 2, 3)])
def test_stored_answers_are_not_generated_again(tmp_path: Path, seen: list[list[int]], done: tuple[int, ...]) -> None:
    store = AnswerStore(tmp_path)
    with store.writing() as file:
        for number in done:
            store.add(file, number, Answer([], "earlier", "stop"))
    write(AnswerStore(tmp_path))
    assert seen == [left for batch in ((0, 1), (2, 3), (4,)) if (left := [n for n in batch if n not in done])]
    stored = AnswerStore(tmp_path)
    assert [stored.read(n).text == "earlier" for n in range(5)] == [n in done for n in range(5)]
