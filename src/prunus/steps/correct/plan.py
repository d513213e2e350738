"""Cost of correction."""

from __future__ import annotations

from prunus.costs import Around, Cost
from prunus.models.shape import Shape
from prunus.steps.correct.config import CorrectConfig
from prunus.training.plan import training_cost


def cost(config: CorrectConfig, shape: Shape, around: Around) -> Cost:
    """Estimate the cost."""
    return training_cost(config, shape, around)
