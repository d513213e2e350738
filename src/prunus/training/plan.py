"""Training as a plan sees it: what is refused before any work, and what it costs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.metadata import version

from packaging.version import Version

from prunus import distributed
from prunus.config import StepConfig
from prunus.costs import Around, Cost, kept_bytes, trained_bytes
from prunus.errors import RecipeError
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig, TrainingConfig
from prunus.training.deepspeed import read_settings

_SHARDS = Version(
    "5.23"
)  # the first transformers whose Trainer accumulates gradients of a module that is sharded already


def check_runtime(runtime: Runtime, configs: Iterable[StepConfig]) -> None:
    """Refuse trackers that are not installed, sharding by a Trainer that cannot, and DeepSpeed where a step cannot.

    Raises:
        RecipeError: Names what it is, and what is allowed.
    """
    if distributed.share_weights(runtime.shard) and Version(version("transformers")) < _SHARDS:
        raise RecipeError(
            f"runtime.shard: true; needs transformers {_SHARDS} or later, and {version('transformers')} is installed; "
            "allowed: false, which replicates the weights"
        )
    for tracker in runtime.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RecipeError(f"runtime.trackers: {tracker} is not installed; `pip install {tracker}` brings it")
    for config in configs:
        if runtime.deepspeed and isinstance(config, OptimizerConfig) and getattr(config, "tokens", True):
            read_settings(runtime.deepspeed, config.optimizer)


def training_cost(config: TrainingConfig, shape: Shape, around: Around) -> Cost:
    """Estimate it, without a teacher: a backward pass costs two forward ones."""
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = tokens * 3 * shape.flops_per_token(config.sequence_length)
    memory = trained_bytes(shape, around.portion(config.batch_size) * config.sequence_length)
    return Cost(tokens, flops, memory, kept_bytes(shape))
