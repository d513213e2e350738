"""What an expansion costs."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.expand.config import ExpandConfig


def cost(config: ExpandConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate it: its weights."""
    return Cost(disk_bytes=shape.parameters * 4)
