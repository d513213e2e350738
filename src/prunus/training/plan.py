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
    """Refuse missing trackers, sharding with a transformers that cannot do it, and an unusable DeepSpeed configuration.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    if distributed.shards_weights(runtime.shard) and Version(version("transformers")) < _SHARDS:
        raise RecipeError(
            f"runtime.shard: true; needs transformers {_SHARDS} or later, and {version('transformers')} is installed; "
            "allowed: false, which replicates the weights"
        )
    for tracker in runtime.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RecipeError(f"runtime.trackers: {tracker} is not installed; `pip install {tracker}` installs it")
    for config in configs:
        if runtime.deepspeed and isinstance(config, OptimizerConfig) and getattr(config, "tokens", True):
            read_settings(runtime.deepspeed, config.optimizer)


def training_cost(config: TrainingConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate training without a teacher: a backward pass costs as much as two forward passes."""
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = tokens * 3 * shape.flops_per_token(config.sequence_length)
    memory = trained_bytes(shape, context.micro_batch(config.batch_size) * config.sequence_length)
    return Cost(tokens, flops, memory, kept_bytes(shape))
