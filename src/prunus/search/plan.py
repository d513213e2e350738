"""What a search costs."""

from __future__ import annotations

from typing import Protocol

from prunus import costs
from prunus.config import StepConfig
from prunus.costs import Around, Cost
from prunus.models.shape import Shape
from prunus.search.halving import rung_sizes


class Rungs(Protocol):
    """The options of a search that says how candidates are recovered."""

    candidates: int
    eta: int
    rungs: int

    def recovery(self, rung: int, between: bool = False) -> StepConfig:
        """The distillation of a rung."""


def cost(config: Rungs, shape: Shape, around: Around) -> Cost:
    """Estimate it as if every candidate were as large as the teacher: what fits the budget is known later.

    Disk holds the weights of one rung, and of the one that is under way.
    """
    sizes = rung_sizes(config.candidates, config.eta, config.rungs)
    each = [costs.cost(config.recovery(rung), around.teacher, around) for rung in range(len(sizes))]
    tokens = sum(count * one.tokens for count, one in zip(sizes, each, strict=True))
    flops = sum(count * one.flops for count, one in zip(sizes, each, strict=True))
    return Cost(tokens, flops, each[0].memory_bytes, 2 * config.candidates * around.teacher.parameters * 4)
