"""Checks and cost estimates of training, for plans."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.metadata import version

from packaging.version import Version

from prunus import distributed
from prunus.config import StepConfig
from prunus.costs import Cost, CostContext, kept_bytes, trained_bytes
from prunus.errors import RecipeError
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig, TrainingConfig
from prunus.training.deepspeed import read_settings

_SHARDS = Version("5.23")  # the first transformers whose Trainer accumulates gradients of an already sharded module


def check_runtime(runtime: Runtime, configs: Iterable[StepConfig]) -> None:
    """Refuse missing packages, sharding with a transformers that cannot do it, and an unusable DeepSpeed configuration.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    for tracker in runtime.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RecipeError(f"runtime.trackers: {tracker} is not installed; `pip install {tracker}` installs it")
    for config in configs:
        if isinstance(config, OptimizerConfig) and config.lora.r:
            _check_lora(config, runtime)
        if isinstance(config, OptimizerConfig) and config.optimizer == "adamw_8bit":
            _check_eight_bits(config, runtime)
        bits = getattr(config, "teacher_bits", None)
        if bits and distributed.shards_weights(runtime.shard):
            raise RecipeError(
                f"{config.kind}.teacher_bits: {bits}; not with runtime.shard: true, which shards weights in the run's "
                "precision; allowed: replicated weights"
            )
        quantise = getattr(config, "quantise", None)
        if quantise and (distributed.shards_weights(runtime.shard) or runtime.deepspeed):
            option = "runtime.deepspeed" if runtime.deepspeed else "runtime.shard: true"
            raise RecipeError(
                f"{config.kind}.quantise: {quantise}; not with {option}, which keep the weights in parts; allowed: "
                "replicated weights"
            )
        if runtime.deepspeed and isinstance(config, OptimizerConfig) and getattr(config, "tokens", True):
            read_settings(runtime.deepspeed, config.optimizer)
    if distributed.shards_weights(runtime.shard) and Version(version("transformers")) < _SHARDS:
        raise RecipeError(
            f"runtime.shard: true; needs transformers {_SHARDS} or later, and {version('transformers')} is installed; "
            "allowed: false, which replicates the weights"
        )


def _check_lora(config: OptimizerConfig, runtime: Runtime) -> None:
    """Refuse LoRA without peft, and with sharded weights.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    where = f"{config.kind}.lora"
    if importlib.util.find_spec("peft") is None:
        raise RecipeError(f"{where}: needs peft, which is not installed; `pip install 'prunus[lora]'` installs it")
    if distributed.shards_weights(runtime.shard) or runtime.deepspeed:
        option = "runtime.deepspeed" if runtime.deepspeed else "runtime.shard: true"
        raise RecipeError(f"{where}: not with {option}; allowed: replicated weights, of which few are trained")


def _check_eight_bits(config: OptimizerConfig, runtime: Runtime) -> None:
    """Refuse moments in 8 bits without torchao, and with sharded weights.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    where = f"{config.kind}.optimizer: {config.optimizer}"
    if importlib.util.find_spec("torchao") is None:
        raise RecipeError(f"{where} needs torchao, which is not installed; `pip install 'prunus[torchao]'` installs it")
    if distributed.shards_weights(runtime.shard) or runtime.deepspeed:
        option = "runtime.deepspeed" if runtime.deepspeed else "runtime.shard: true"
        raise RecipeError(f"{where}; not with {option}, which divides the state itself; allowed: replicated weights")


def check_rank(config: StepConfig, shape: Shape, where: str) -> None:
    """Refuse LoRA for a mixture of experts, and a rank above the width of the model's narrowest matrix.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    rank = config.lora.r if isinstance(config, OptimizerConfig) and getattr(config, "tokens", True) else 0
    if rank and shape.num_experts:
        raise RecipeError(f"{where}.lora: not for a mixture of experts; allowed: training all weights")
    narrowest = min(map(min, shape.layer_matrices()))
    if rank > narrowest:
        raise RecipeError(f"{where}.lora.r: {rank} is more than the narrowest matrix; allowed: at most {narrowest}")


def training_cost(config: TrainingConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate training without a teacher: a backward pass costs as much as two forward passes."""
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = tokens * 3 * shape.flops_per_token(config.sequence_length)
    held, updates = context.micro_batch(config.batch_size) * config.sequence_length, (config.optimizer, config.lora.r)
    return Cost(tokens, flops, trained_bytes(shape, held, context, *updates), kept_bytes(shape, *updates))
