"""Planning of a cut: the checks before any work, and the cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape
from prunus.steps.prune.config import PruneConfig

_HEALING_PASSES = 2  # cost of healing everything, in forward passes of both models: benchmarks/refit.py measures it


def check_cut(config: PruneConfig, teacher: Shape, target: Shape, where: str) -> None:
    """Refuse a student that would equal its teacher, and a merge of experts that all stay.

    Raises:
        ShapeError: Nothing is cut, or nothing is merged.
    """
    if target == teacher and config.init == "teacher" and not config.nest:
        raise ShapeError(f"{where}: nothing is cut; reduce one of {', '.join(PRUNABLE)}, or set drop_layers")
    if config.merge_experts != "none" and config.init == "teacher" and target.num_experts == teacher.num_experts:
        has = (
            f"all {teacher.num_experts} experts of a layer stay" if teacher.num_experts else "this model has no experts"
        )
        allowed = "set num_experts, or remove this option" if teacher.num_experts else "allowed: none"
        raise ShapeError(f"{where}.merge_experts: {config.merge_experts!r}, but {has}; {allowed}")


def cost(config: PruneConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the weights, and passes of both models if the cut is healed or blocks are refitted."""
    weights, heals = shape.parameters * 4, config.heals(context.teacher, shape)
    if not heals and not config.refits_blocks:
        return Cost(disk_bytes=weights)
    read, models = config.heal.samples * config.heal.sequence_length, (context.teacher, shape)
    blocks = shape.num_hidden_layers + 1 if config.refits_blocks else 0  # each is cut and refitted
    tokens = read * (blocks + heals)
    work = read * (blocks / 2 + heals)  # layers before the block are the teacher's: half of them on average
    flops = work * sum(model.flops_per_token(config.heal.sequence_length) for model in models) * _HEALING_PASSES
    streams = read * (2 * context.teacher.hidden_size + shape.hidden_size) * 4
    return Cost(tokens, flops, sum(model.parameters * 4 for model in models) + streams, weights)
