"""What is refused before a nest is trained."""

from __future__ import annotations

from collections.abc import Collection

from prunus import distributed
from prunus.errors import RecipeError
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.nest_config import NestConfig


def check_nest(config: DistillConfig, sizes: Collection[str], runtime: Runtime, where: str) -> None:
    """Refuse options that do not work with several sizes, or only with them.

    Args:
        config: The options.
        sizes: The names of the nest's sizes; empty if the student is no nest.
        runtime: Where it is trained.
        where: The name of the config in the recipe, such as `students.family.distill`.

    Raises:
        RecipeError: Names every option, and what is allowed.
    """
    if not config.tokens:
        return
    if not sizes:
        if config.nest != NestConfig():
            raise RecipeError(f"{where}.nest: the student has one size; allowed with prune.nest")
        return
    unknown = [name for name in config.nest.weights if name not in sizes]
    states = config.states
    refused = {
        f"nest.weights: {', '.join(unknown)} is not a size": (bool(unknown), ", ".join(sizes)),
        "data: student": (config.data == "student", "corpus or teacher"),
        "lora": (config.lora.r > 0, "training all weights"),
        "quantise": (config.quantise is not None, "qat, which trains each size by itself"),
        "states.projection: learned": (
            config.compares_states and states.projection == "learned",
            "basis, or states: none",
        ),
        "states.layers with pairs": (
            config.compares_states and isinstance(states.layers, tuple),
            "kept or late, since sizes differ in layers",
        ),
        "runtime.shard": (distributed.shards_weights(runtime.shard), "replicated weights"),
        "runtime.deepspeed": (bool(runtime.deepspeed), "replicated weights"),
    }
    mistakes = [f"{where}: {option}: not for a nest; allowed: {allowed}" for option, (is_given, allowed) in
                refused.items() if is_given]  # fmt: skip
    if mistakes:
        raise RecipeError("\n  ".join(mistakes))
