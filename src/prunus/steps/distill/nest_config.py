"""Options of the training of a nest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import Field, field_validator

from prunus.config import Config

T = TypeVar("T")


class NestConfig(Config):
    """How the sizes of a nest (`prune.nest`) share the training steps."""

    schedule: Literal["alternate", "sandwich", "all"] = "alternate"
    """The sizes that a step trains, always with the largest. `alternate`: one smaller size, in turn. `sandwich`: the
    smallest, and one of those between in turn (arXiv 1903.05134). `all`: every size."""
    weights: dict[str, float] = Field(default={})
    """Weight of a size's loss, by name; 1 for others. A step's loss is the weighted mean of those of its sizes."""

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not weight > 0:
                raise ValueError(f"{name}: {weight}; it must be above 0")
        return weights

    def drawn(self, smaller: Sequence[T], step: int) -> list[T]:
        """The sizes that a step trains in addition to the largest.

        Args:
            smaller: All but the largest, in descending order.
            step: The number of the step, from 0.
        """
        if self.schedule == "all":
            return list(smaller)
        if self.schedule == "alternate":
            return [smaller[step % len(smaller)]]
        *inside, smallest = smaller
        return [*([inside[step % len(inside)]] if inside else []), smallest]

    def shares(self, smaller: Sequence[T]) -> list[float]:
        """The share of the steps that trains each of these sizes."""
        count = len(smaller)
        if not count:
            return []
        if self.schedule == "all":
            return [1.0] * count
        if self.schedule == "alternate":
            return [1 / count] * count
        return [*[1 / max(count - 1, 1)] * (count - 1), 1.0]

    def weight(self, name: str) -> float:
        """The weight of a size's loss."""
        return self.weights.get(name, 1.0)
