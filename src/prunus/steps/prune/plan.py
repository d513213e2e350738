"""Planning of a cut: the checks before any work, and the cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape
from prunus.steps.prune.config import CHECK_LENGTH, PruneConfig
from prunus.steps.prune.heal_config import CACHE_BYTES

_HEALING_PASSES = 2  # cost of healing everything, in forward passes of both models: benchmarks/refit.py measures it
_LOGITS = 6  # logits, log-probabilities and KL of a sequence, of both models
_STREAMS = 3  # before and after a layer, and its micro-batches before they are joined


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
    read, models = config.heal.samples * config.heal.sequence_length, (context.teacher, shape)
    compared = config.check_samples and config.takes_text
    memory = weights + context.teacher.parameters * context.frozen
    logits = _LOGITS * max(config.heal.sequence_length, CHECK_LENGTH) * context.teacher.vocab_size * 4
    if not heals and not config.refits_blocks:
        return Cost(memory_bytes=memory + logits if compared else 0, disk_bytes=weights)
    blocks = shape.num_hidden_layers + 1 if config.refits_blocks else 0  # each is cut and refitted
    tokens = read * (blocks + heals * max(1, len(config.nest)))
    work = read * (blocks / 2 + heals)  # layers before the block are the teacher's: half of them on average
    sizes = config.nested(context.teacher, "prune").values() if config.nest else (shape,)  # each is fitted, one by one
    flops_t, *flops_s = (one.flops_per_token(config.heal.sequence_length) for one in (context.teacher, *sizes))
    flops = work * sum(flops_t + one for one in flops_s) * _HEALING_PASSES
    streams = _STREAMS * read * sum(model.hidden_size for model in models) * 4
    return Cost(tokens, flops, memory + max(logits, streams + _cached_bytes(*models, read)), weights)


def _cached_bytes(teacher: Shape, student: Shape, tokens: int) -> int:
    """Bytes of a layer's activations that are kept for its refits: see `activations.LayerRunner`."""
    heads, heads_there = (model.num_attention_heads * model.head_dim for model in (student, teacher))
    compared = heads_there + 5 * teacher.hidden_size  # in and out of two norms and of attention's last linear layer
    inputs = heads + student.intermediate_size  # of the last linear layers of attention and MLP
    return sum(min(4 * tokens * values, CACHE_BYTES) for values in (compared, inputs))
