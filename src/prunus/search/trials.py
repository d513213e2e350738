"""What the search asks of whoever cuts, recovers and measures candidates for it."""

from __future__ import annotations

from typing import Any, Protocol

from prunus.models.shape import Shape
from prunus.search.candidates import Candidate
from prunus.search.space import Space

BEFORE = -1
"""The rung before any recovery."""


class Trials(Protocol):
    """Steps are no business of another step: the pipeline makes each trial out of them, and keeps what they leave."""

    def space(self, teacher: Shape, fine: bool = False) -> Space:
        """All that a candidate may be; `fine`, with the finest sizes."""

    def layer_choices(self, shape: Shape) -> list[tuple[int, ...]]:
        """The layers that a shape may do without, from what the scores choose on."""

    def tokens(self, rung: int) -> int:
        """Tokens that a candidate has been recovered on after a rung."""

    def measure(self, candidate: Candidate, rung: int) -> dict[str, dict[str, float]]:
        """A candidate's figures on the ranking text after a rung, each with `value`, `low` and `high`.

        What has been measured is looked up; what has not is cut and recovered first.
        """

    def forget(self, candidate: Candidate, rung: int) -> None:
        """Remove the weights that a candidate had before a rung; all of them for one rung more than there are."""

    def sizes(self, candidate: Candidate) -> dict[str, Any]:
        """How the candidate is cut, as options of `prune`."""
