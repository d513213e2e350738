"""Cost of candidates."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.models.shape import Shape
from prunus.steps.candidates.config import CandidatesConfig


def cost(config: CandidatesConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate answers of the greatest length to every prompt."""
    write, chat = config.write, context.chat
    tokens = write.answers * (chat.prompts + chat.rows * write.max_new_tokens)
    return Cost(tokens, tokens * shape.flops_per_token(config.sequence_length), 4 * shape.parameters)
