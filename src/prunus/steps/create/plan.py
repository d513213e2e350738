"""Cost of creating a teacher."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.create.config import CreateConfig


def cost(config: CreateConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the weights on disk."""
    return Cost(disk_bytes=shape.parameters * 4)
