"""The tokens that end an answer, and whether the answers in training data end with one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import DataError, ModelError
from prunus.files import read_object

FILES = ("generation_config.json", "config.json")
"""The files of a model folder that name them, as `eos_token_id`."""


def named_ends(folder: Path) -> set[int]:
    """The end tokens named in a model folder's files, by id.

    Raises:
        ModelError: A file cannot be read, or its value is not an id.
    """
    result: set[int] = set()
    for file in (folder / name for name in FILES):
        named = read_object(file, ModelError).get("eos_token_id") if file.is_file() else None
        for end in named if isinstance(named, list) else [named]:
            if end is None:
                continue
            if isinstance(end, bool) or not isinstance(end, int):
                raise ModelError(f"{file}: eos_token_id is {named!r:.60}; expected an id, or a list of ids")
            result.add(end)
    return result


def ends_of(folder: Path, tokenizer: Any) -> set[int]:
    """The ids that end an answer: those named in the folder's files, and the tokenizer's `eos_token`.

    Raises:
        ModelError: As `named_ends`.
    """
    return named_ends(folder) | ({tokenizer.eos_token_id} - {None})


@dataclass
class EndCounter:
    """Counts the answers that end with an end token.

    Attributes:
        ends: The end tokens: id to text.
        answers: Number of answers.
        ended: Number of answers that end with an end token.
    """

    ends: dict[int, str]
    answers: int = 0
    ended: int = 0

    def add(self, last: int) -> None:
        """Count an answer, given its last token."""
        self.answers += 1
        self.ended += last in self.ends

    def check(self) -> str | None:
        """A warning if some answers do not end with an end token, else None.

        Raises:
            DataError: No answer does, so that a model could not learn to end its answers.
        """
        if not self.ends:
            return "the model names no token that ends an answer (eos_token); it will not learn to end its answers"
        names = ", ".join(map(repr, sorted(self.ends.values())))
        if self.answers and not self.ended:
            raise DataError(
                f"data.template: rendered by the chat template, none of the {self.answers} answers ends with an end "
                f"token ({names}); a model trained on them never stops. Allowed: a template that puts one after each "
                "answer, or a model whose generation_config.json names the template's end token as eos_token_id"
            )
        if self.ended < self.answers:
            return (
                f"{self.answers - self.ended} of {self.answers} answers do not end with an end token ({names}) when "
                "rendered by the chat template"
            )
        return None
