"""What a merge costs."""

from __future__ import annotations

from math import prod

from prunus.costs import Around, Cost
from prunus.merge.config import MergeConfig
from prunus.models.shape import Shape


def cost(config: MergeConfig, shape: Shape, around: Around) -> Cost:
    """Estimate one weight of every model in memory; of an evolution the longest answers of all trials."""
    evolve, weights = config.evolve, shape.parameters * 4
    if not evolve.trials:
        largest = max(prod(size) for _, size in shape.tensors())
        return Cost(memory_bytes=len(around.inputs) * 4 * largest, disk_bytes=weights)
    tokens = (evolve.trials + evolve.finalists + 1) * len(evolve.tasks) * evolve.items * evolve.max_new_tokens
    return Cost(tokens, tokens * shape.flops_per_token(evolve.max_new_tokens), weights, 2 * weights)
