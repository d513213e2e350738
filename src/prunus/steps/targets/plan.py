"""What it costs to keep the teacher's targets."""

from __future__ import annotations

from prunus.costs import ACTIVATIONS, Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.targets.config import TargetsConfig


def cost(config: TargetsConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate it as if no sequence were read twice; how many there are is known when the text is tokenised."""
    tokens = config.sequences * config.sequence_length
    kept = min(config.count, shape.vocab_size) if config.keep == "top_k" else config.count
    per_token = kept * (2 if shape.vocab_size <= 2**16 else 4) + (2 * (kept + 1) if config.keep == "top_k" else 0)
    portion = context.micro_batch(config.sequences) * config.sequence_length
    memory = shape.parameters * 4 + ACTIVATIONS * portion * shape.hidden_size
    return Cost(tokens, tokens * shape.flops_per_token(config.sequence_length), memory, tokens * per_token)
