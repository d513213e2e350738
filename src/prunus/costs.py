"""What a step will cost, before any of it is done: each room's `plan` says its own, and is found by its name."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from prunus.config import StepConfig
from prunus.models.shape import Shape

ACTIVATIONS = 34
"""Bytes a token, layer and channel at 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, eq. 2)."""

_TRAINED = 16  # bytes a parameter: weight, gradient and AdamW's two moments, in float32
_CHUNK = 2048  # tokens whose logits exist at a time, at most; see `training.head`
_LOGITS = 2  # float32 values a token of a chunk and vocabulary entry: the student's logits and the teacher's


@dataclass(frozen=True)
class Cost:
    """An estimate. Memory is for one device in float32; evaluation's tokens are an upper bound."""

    tokens: int = 0
    flops: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True)
class Around:
    """What a step's cost depends on beside its options and its model.

    Attributes:
        teacher: The shape of the recipe's teacher.
        device_batch_size: Sequences that a device takes at a time.
        inputs: The names of the step's inputs.
    """

    teacher: Shape
    device_batch_size: int
    inputs: frozenset[str] = frozenset()

    def portion(self, sequences: int) -> int:
        """How many of so many sequences are on a device at a time."""
        return min(self.device_batch_size, sequences)


def cost(config: StepConfig, shape: Shape, around: Around) -> Cost:
    """Estimate one step; nothing where its room says nothing.

    Args:
        config: Its options, whose class names the room.
        shape: The model that it makes or reads.
        around: What else it depends on.
    """
    room = f"{config.room()}.plan"
    if importlib.util.find_spec(room) is None:
        return Cost()
    found: Cost = importlib.import_module(room).cost(config, shape, around)
    return found


def trained_bytes(shape: Shape, tokens: int) -> int:
    """Bytes of a model in training, and of what it holds of so many tokens."""
    return shape.parameters * _TRAINED + held_bytes(shape, tokens)


def held_bytes(shape: Shape, tokens: int) -> int:
    """Bytes of what a backward pass over so many tokens reads, and of a chunk's logits."""
    logits = 4 * min(tokens, _CHUNK) * shape.vocab_size * _LOGITS
    return logits + 2 * ACTIVATIONS * tokens * shape.num_hidden_layers * shape.hidden_size


def kept_bytes(shape: Shape) -> int:
    """Bytes of a trained model, and of checkpoints: weights and moments, and the one before until the new is whole."""
    return shape.parameters * 4 + 2 * shape.parameters * 12
