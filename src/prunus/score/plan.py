"""What scoring costs."""

from __future__ import annotations

from prunus.costs import Around, Cost, held_bytes
from prunus.models.shape import Shape
from prunus.score.config import GRADIENTS, ScoreConfig


def cost(config: ScoreConfig, shape: Shape, around: Around) -> Cost:
    """Estimate it: passes over the calibration set, and over a few sequences without each block of layers."""
    per_token, tokens = shape.flops_per_token(config.sequence_length), config.samples * config.sequence_length
    backward = bool(GRADIENTS & set(config.collect))
    passes = 1 + backward  # backward to the activations alone costs another forward
    layers = shape.num_hidden_layers
    removals = sum(layers - block + 1 for block in config.blocks if block < layers)
    losses = removals * ("lm_loss" in config.collect)
    if "logit_nmse" in config.collect:  # each beside the whole model
        losses += 2 * (removals + layers * (layers + 1) // 2 - 1)
    few = min(config.layer_samples, config.samples) * config.sequence_length * losses
    held = held_bytes(shape, around.portion(config.samples) * config.sequence_length) if backward else 0
    return Cost(tokens + few, (tokens * passes + few) * per_token, shape.parameters * 4 + held, 0)
