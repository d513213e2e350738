"""Cost of correction."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.correct.config import CorrectConfig
from prunus.training.plan import training_cost


def cost(config: CorrectConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost."""
    return training_cost(config, shape, context)
