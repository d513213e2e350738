"""What a stage of alignment costs."""

from __future__ import annotations

from prunus.align.config import LIKELIHOOD, AlignConfig
from prunus.costs import Around, Cost, kept_bytes, trained_bytes
from prunus.models.shape import Shape


def cost(config: AlignConfig, shape: Shape, around: Around) -> Cost:
    """Estimate memory and disk alone: how much there is to learn from is known when it has been read."""
    answers = 1 if config.method in LIKELIHOOD else 2
    tokens = around.portion(config.batch_size) * config.sequence_length * answers
    return Cost(memory_bytes=trained_bytes(shape, tokens), disk_bytes=kept_bytes(shape))
