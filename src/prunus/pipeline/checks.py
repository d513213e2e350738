"""What a plan and a single command refuse alike, before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from contextlib import suppress

from prunus.config import StepConfig
from prunus.data.config import TokensConfig
from prunus.data.mixture import check_some
from prunus.distill.config import DistillConfig
from prunus.errors import HubError, RecipeError, ShapeError
from prunus.graph.steps import Given, Step
from prunus.models.shape import PRUNABLE, Shape
from prunus.prune.config import PruneConfig
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig
from prunus.training.deepspeed import read_settings


def check_texts(steps: Iterable[Step]) -> None:
    """Refuse text of which a `data` step would keep no document; what the hub does not give has been found out before.

    Raises:
        DataError: Names the step, its sources and the part that has none.
    """
    seen: set[tuple[str, str]] = set()
    for step in steps:
        sources = step.inputs.get("sources")
        if isinstance(step.config, TokensConfig) and isinstance(sources, Given):
            if (sources.fingerprint, step.config.part) not in seen:
                with suppress(HubError):
                    check_some(sources.value, step.config, step.name)
            seen.add((sources.fingerprint, step.config.part))


def check_runtime(runtime: Runtime, configs: Iterable[StepConfig]) -> None:
    """Refuse trackers that are not installed, and a configuration of DeepSpeed's that a step cannot train under.

    Raises:
        RecipeError: Names what it is, and what is allowed.
    """
    for tracker in runtime.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RecipeError(f"runtime.trackers: {tracker} is not installed; `pip install {tracker}` brings it")
    for config in configs:
        if runtime.deepspeed and isinstance(config, OptimizerConfig) and getattr(config, "tokens", True):
            read_settings(runtime.deepspeed, config.optimizer)


def check_cut(config: PruneConfig, teacher: Shape, target: Shape, where: str) -> None:
    """Refuse a student that would be its teacher.

    Raises:
        ShapeError: Nothing is cut.
    """
    if target == teacher and config.init == "teacher":
        raise ShapeError(f"{where}: nothing is cut: give fewer of one of {', '.join(PRUNABLE)}, or drop_layers")


def check_cached(config: DistillConfig, shares_vocabulary: bool, where: str) -> None:
    """Refuse to train on targets that were kept what needs more of the teacher than they hold.

    Raises:
        RecipeError: Names the option, and what is allowed.
    """
    refused = {
        f"loss: {config.loss}": (config.loss != "forward_kl", "loss: forward_kl"),
        "states": (config.states.weight != 0, "states: none"),
        f"token_weights: {config.token_weights}": (config.token_weights != "uniform", "token_weights: uniform"),
        f"top_k: {config.top_k}": (config.top_k is not None, "no top_k, since targets.count says how many are kept"),
        "data: student": (config.data == "student", "data: corpus or teacher"),
        "prune.vocab_size": (not shares_vocabulary, "the teacher's own vocabulary"),
    }
    for option, (asked, allowed) in refused.items():
        if asked:
            raise RecipeError(
                f"{where}.targets: cached keeps a few of the teacher's probabilities, and {option} needs more of it; "
                f"allowed: {allowed}, or targets: online"
            )


def check_length(name: str, length: int, context: int) -> None:
    """Refuse sequences that a model was not made for.

    Raises:
        RecipeError: Names the option and the longest that is allowed.
    """
    if length > context:
        raise RecipeError(f"{name}.sequence_length: {length} is more than the model's context of {context} tokens")


def check_same_tokens(model: Shape, teacher: Shape, where: str) -> None:
    """Refuse a teacher that is to read a model's tokens and has another vocabulary.

    Raises:
        RecipeError: Gives both sizes, and what would work.
    """
    if model.vocab_size != teacher.vocab_size:
        raise RecipeError(
            f"{where}: it has {teacher.vocab_size} tokens and the model {model.vocab_size}, so they read a text as "
            "other tokens, and sums over tokens do not compare; evaluate each without the other"
        )
