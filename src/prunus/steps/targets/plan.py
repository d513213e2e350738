"""Cost of cached targets."""

from __future__ import annotations

from prunus.costs import ACTIVATIONS, Cost, CostContext
from prunus.models.bits import frozen_bytes
from prunus.models.shape import Shape
from prunus.steps.targets.config import TargetsConfig


def cost(config: TargetsConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost as if no sequence were repeated; their number is known only after tokenising.

    With a server, the teacher is here for a comparison at most.
    """
    tokens = config.sequences * config.sequence_length
    kept = min(config.count, shape.vocab_size) if config.keep == "top_k" else config.count
    per_token = kept * (2 if shape.vocab_size <= 2**16 else 4) + (2 * (kept + 1) if config.keep == "top_k" else 0)
    if config.server.url:
        return Cost(tokens, 0, shape.parameters * context.frozen * config.server.compare, tokens * per_token)
    batch_tokens = context.micro_batch(config.sequences) * config.sequence_length
    weights = frozen_bytes(shape, config.teacher_bits, context.frozen)
    memory = weights + ACTIVATIONS * batch_tokens * shape.hidden_size
    return Cost(tokens, tokens * shape.flops_per_token(config.sequence_length), memory, tokens * per_token)
