"""Planning of scoring: its inputs and its cost."""

from __future__ import annotations

from pathlib import Path

from prunus.costs import Cost, CostContext, held_bytes
from prunus.data.questions import read_questions
from prunus.fingerprint import fingerprint_files
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.steps.score.config import GRADIENTS, ScoreConfig


def given_task(config: ScoreConfig) -> dict[str, Step | Given]:
    """The file of questions as an input, if layers are scored by accuracy; otherwise empty.

    Raises:
        DataError: The questions cannot be read.
    """
    if config.task is None or "accuracy" not in config.collect:
        return {}
    file = Path(config.task).expanduser()
    read_questions(file, 1)
    return {"task": Given(file, fingerprint_files([file]))}


def cost(config: ScoreConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: passes over the calibration set, and over `layer_samples` without each block of layers."""
    per_token, tokens = shape.flops_per_token(config.sequence_length), config.samples * config.sequence_length
    backward = bool(GRADIENTS & set(config.collect))
    passes = 1 + backward  # a backward pass to activations only costs as much as a forward pass
    layers = shape.num_hidden_layers
    removals = sum(layers - block + 1 for block in config.blocks if block < layers)
    losses = removals * ("lm_loss" in config.collect)
    if "logit_nmse" in config.collect:  # each also runs the complete model
        losses += 2 * (removals + layers * (layers + 1) // 2 - 1)
    few = min(config.layer_samples, config.samples) * config.sequence_length * losses
    held = held_bytes(shape, context.micro_batch(config.samples) * config.sequence_length, context) if backward else 0
    return Cost(tokens + few, (tokens * passes + few) * per_token, shape.parameters * context.frozen + held, 0)
