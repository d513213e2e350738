"""Planning of cutting a size out of a nest: its cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.cutout.config import CutoutConfig


def cost(config: CutoutConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: one copy of the weights."""
    return Cost(disk_bytes=shape.parameters * 4)
