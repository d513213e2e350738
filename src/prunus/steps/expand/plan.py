"""Cost of an expansion."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.expand.config import ExpandConfig


def cost(config: ExpandConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the weights on disk."""
    return Cost(disk_bytes=shape.parameters * 4)
