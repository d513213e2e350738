"""Checks and cost estimates of training, for plans."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
        for limit in _limits(config):
            _check_limit(limit, runtime)
        if runtime.deepspeed and isinstance(config, OptimizerConfig) and getattr(config, "tokens", True):
            read_settings(runtime.deepspeed, config.optimizer)
    if distributed.shards_weights(runtime.shard) and Version(version("transformers")) < _SHARDS:
        raise RecipeError(
            f"runtime.shard: true; needs transformers {_SHARDS} or later, and {version('transformers')} is installed; "
            "allowed: false, which replicates the weights"
        )


@dataclass(frozen=True)
class _Limit:
    """An option that needs a package, or whole weights on every process.

    Attributes:
        option: The option.
        why: Why weights in parts do not work with it.
        package: The package that it needs; empty for none.
        extra: The extra of Prunus that installs the package.
        with_deepspeed: Whether it works with DeepSpeed all the same.
    """

    option: str
    why: str
    package: str = ""
    extra: str = ""
    with_deepspeed: bool = False


def _limits(config: StepConfig) -> Iterator[_Limit]:
    """The options of a step that are limited in this way, as far as they are used."""
    if isinstance(config, OptimizerConfig) and config.lora.r:
        yield _Limit(f"{config.kind}.lora", "few weights are trained", "peft", "lora")
    if isinstance(config, OptimizerConfig) and config.optimizer == "adamw_8bit":
        why = "the state is divided in another way there"
        yield _Limit(f"{config.kind}.optimizer: adamw_8bit", why, "torchao", "torchao")
    if bits := getattr(config, "teacher_bits", None):
        yield _Limit(f"{config.kind}.teacher_bits: {bits}", "weights in parts are not rounded", with_deepspeed=True)
    if quantise := getattr(config, "quantise", None):
        yield _Limit(f"{config.kind}.quantise: {quantise}", "a part of a tensor is not rounded as the whole is")


def _check_limit(limit: _Limit, runtime: Runtime) -> None:
    """Refuse an option without its package, or with weights in parts.

    Raises:
        RecipeError: The message says what is refused, and what is allowed.
    """
    if limit.package and importlib.util.find_spec(limit.package) is None:
        raise RecipeError(
            f"{limit.option}; it needs {limit.package}, which is not installed; "
            f"`pip install 'prunus[{limit.extra}]'` installs it"
        )
    shards = distributed.shards_weights(runtime.shard)
    if shards or (runtime.deepspeed and not limit.with_deepspeed):
        setting = "runtime.shard: true" if shards else "runtime.deepspeed"
        raise RecipeError(f"{limit.option}; not with {setting}: {limit.why}; allowed: replicated weights")


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
