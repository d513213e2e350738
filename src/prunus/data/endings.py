"""Which tokens end an answer, and whether what is learnt ends with one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import DataError, ModelError
from prunus.files import read_object

FILES = ("generation_config.json", "config.json")
"""Where a model folder names them, as `eos_token_id`."""


def named_ends(folder: Path) -> set[int]:
    """The ids that a model folder's files name as ends.

    Raises:
        ModelError: A file cannot be read, or names something that is no id.
    """
    found: set[int] = set()
    for file in (folder / name for name in FILES):
        named = read_object(file, ModelError).get("eos_token_id") if file.is_file() else None
        for end in named if isinstance(named, list) else [named]:
            if end is None:
                continue
            if isinstance(end, bool) or not isinstance(end, int):
                raise ModelError(f"{file}: eos_token_id is {named!r:.60}; expected an id, or a list of ids")
            found.add(end)
    return found


def ends_of(folder: Path, tokenizer: Any) -> set[int]:
    """The ids at which an answer ends: those that the folder's files name, and the tokenizer's `eos_token`.

    Raises:
        ModelError: As `named_ends`.
    """
    return named_ends(folder) | ({tokenizer.eos_token_id} - {None})


@dataclass
class Ended:
    """How many answers end with a token that ends an answer.

    Attributes:
        ends: Those tokens, by id, with their text.
    """

    ends: dict[int, str]
    answers: int = 0
    ended: int = 0

    def add(self, last: int) -> None:
        """Count an answer by its last token that is learnt."""
        self.answers += 1
        self.ended += last in self.ends

    def check(self) -> str | None:
        """What the user should know where some answers do not end.

        Raises:
            DataError: None does, so that a model could not learn to end its answers.
        """
        if not self.ends:
            return "the model names no token that ends an answer (eos_token); it will not learn to end its answers"
        names = ", ".join(map(repr, sorted(self.ends.values())))
        if self.answers and not self.ended:
            raise DataError(
                f"data.template: as the chat template shows them, none of the {self.answers} answers ends with a token "
                f"that ends an answer ({names}); a model that learns from them never stops. Allowed: a template that "
                "puts one behind each answer, or a model whose generation_config.json names the template's as "
                "eos_token_id"
            )
        if self.ended < self.answers:
            return (
                f"{self.answers - self.ended} of {self.answers} answers do not end with a token that ends an answer "
                f"({names}), as the chat template shows them"
            )
        return None
