"""Planning of a cut: the checks before any work, and the cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape
from prunus.steps.prune.config import PruneConfig

_HEALING_PASSES = 2  # cost of healing everything, in forward passes of both models: benchmarks/refit.py measures it


def check_cut(config: PruneConfig, teacher: Shape, target: Shape, where: str) -> None:
    """Refuse a student that would equal its teacher.

    Raises:
        ShapeError: Nothing is cut.
    """
    if target == teacher and config.init == "teacher" and not config.nest:
        raise ShapeError(f"{where}: nothing is cut; reduce one of {', '.join(PRUNABLE)}, or set drop_layers")


def cost(config: PruneConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the weights, and passes of both models if the cut is healed or blocks are refitted."""
    weights, heals = shape.parameters * 4, config.heals(context.teacher, shape)
    if not heals and not config.refits_blocks:
        return Cost(disk_bytes=weights)
    read, models = config.heal.samples * config.heal.sequence_length, (context.teacher, shape)
    blocks = shape.num_hidden_layers + 1 if config.refits_blocks else 0  # each is cut and refitted
    tokens = read * (blocks + heals * max(1, len(config.nest)))
    work = read * (blocks / 2 + heals)  # layers before the block are the teacher's: half of them on average
    sizes = config.nested(context.teacher, "prune").values() if config.nest else (shape,)  # each is fitted, one by one
    flops_t, *flops_s = (one.flops_per_token(config.heal.sequence_length) for one in (context.teacher, *sizes))
    flops = work * sum(flops_t + one for one in flops_s) * _HEALING_PASSES
    streams = read * (2 * context.teacher.hidden_size + shape.hidden_size) * 4
    return Cost(tokens, flops, sum(model.parameters * 4 for model in models) + streams, weights)
