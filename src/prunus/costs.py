"""Cost estimates of steps. Each step's `plan` module has its own, which is looked up by the module's name."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from prunus.config import StepConfig
from prunus.data.chat_size import UNKNOWN, ChatSize
from prunus.models.shape import Shape

ACTIVATIONS = 34
"""Bytes per token, layer and channel at 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, eq. 2)."""
STREAM = 4
"""Bytes per token, layer and channel of what gradient checkpointing keeps: a layer's input, in float32."""

_TRAINED = 8  # bytes per parameter: weight and gradient in float32
_STATE = {"adamw": 8, "adamw_8bit": 2, "muon": 4}  # bytes per parameter of the optimizer's state
_CHUNK = 2048  # the most tokens whose logits exist at a time; see `training.head`
_LOGITS = 2  # float32 values per token and vocabulary entry: the student's logits and the teacher's


@dataclass(frozen=True)
class Cost:
    """An estimate. Memory is for one device; evaluation's tokens are an upper bound."""

    tokens: int = 0
    flops: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True)
class CostContext:
    """What a step's cost depends on in addition to its options and its model.

    Attributes:
        teacher: The shape of the recipe's teacher.
        device_batch_size: Sequences that a device processes at a time.
        inputs: The names of the step's inputs.
        chat: The amount of chat data that the step reads.
        half: Whether products, activations and frozen weights are in 16 bits, as on most GPUs.
        recompute: Whether activations are recomputed in the backward pass (gradient checkpointing).
        inside: The shapes of a nest's smaller sizes.
    """

    teacher: Shape
    device_batch_size: int
    inputs: frozenset[str] = frozenset()
    chat: ChatSize = UNKNOWN
    half: bool = False
    recompute: bool = False
    inside: tuple[Shape, ...] = ()

    @property
    def frozen(self) -> int:
        """Bytes per weight of a model that is not trained."""
        return 2 if self.half else 4

    def micro_batch(self, sequences: int) -> int:
        """The number of sequences on a device at a time, out of `sequences`."""
        return min(self.device_batch_size, sequences)


def cost(config: StepConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost of one step; zero if it has no `plan` module.

    Args:
        config: Its options, whose class names the step's package.
        shape: The model that it makes or reads.
        context: What else the cost depends on.
    """
    room = f"{config.room()}.plan"
    if importlib.util.find_spec(room) is None:
        return Cost()
    result: Cost = importlib.import_module(room).cost(config, shape, context)
    return result


def trained_bytes(shape: Shape, tokens: int, context: CostContext, optimizer: str, rank: int = 0) -> int:
    """Bytes of a model in training and of its activations for a micro-batch of `tokens` tokens.

    Args:
        shape: The model.
        tokens: Tokens of the micro-batch.
        context: Precision, and whether activations are recomputed.
        optimizer: As `OptimizerConfig.optimizer`.
        rank: Rank of the updates if only these are trained (LoRA); 0 if all weights are.
    """
    frozen = shape.parameters * context.frozen if rank else 0
    weights = trained_parameters(shape, rank) * _TRAINED
    return frozen + weights + state_bytes(shape, optimizer, rank) + held_bytes(shape, tokens, context)


def state_bytes(shape: Shape, optimizer: str, rank: int = 0) -> int:
    """Bytes of an optimizer's state; see `trained_bytes`. Embeddings and head are not Muon's, but AdamW's."""
    tables = 0 if rank else shape.parameters - shape.non_embedding_parameters
    of_tables = _STATE["adamw" if optimizer == "muon" else optimizer]
    return (trained_parameters(shape, rank) - tables) * _STATE[optimizer] + tables * of_tables


def trained_parameters(shape: Shape, rank: int) -> int:
    """The number of parameters that are trained: all, or those of updates of some rank to the layers' matrices."""
    return rank * sum(map(sum, shape.layer_matrices())) if rank else shape.parameters


def held_bytes(shape: Shape, tokens: int, context: CostContext) -> int:
    """Bytes of the activations that a backward pass over `tokens` tokens reads, and of a chunk's logits."""
    logits = 4 * min(tokens, _CHUNK) * shape.vocab_size * _LOGITS
    layer = ACTIVATIONS * tokens * shape.hidden_size * (1 if context.half else 2)
    if not context.recompute:
        return logits + layer * shape.num_hidden_layers
    return logits + layer + STREAM * tokens * shape.hidden_size * shape.num_hidden_layers


def kept_bytes(shape: Shape, optimizer: str, rank: int = 0) -> int:
    """Disk bytes of a trained model and its checkpoints: what is trained, and the optimizer's state.

    Two checkpoints exist while one is written. For `optimizer` and `rank` see `trained_bytes`.
    """
    return shape.parameters * 4 + 2 * (trained_parameters(shape, rank) * 4 + state_bytes(shape, optimizer, rank))
