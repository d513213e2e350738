"""What a training costs."""

from __future__ import annotations

from prunus.costs import Around, Cost, kept_bytes, trained_bytes
from prunus.models.shape import Shape
from prunus.training.config import TrainingConfig


def training_cost(config: TrainingConfig, shape: Shape, around: Around) -> Cost:
    """Estimate it, without a teacher: a backward pass costs two forward ones."""
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = tokens * 3 * shape.flops_per_token(config.sequence_length)
    memory = trained_bytes(shape, around.portion(config.batch_size) * config.sequence_length)
    return Cost(tokens, flops, memory, kept_bytes(shape))
