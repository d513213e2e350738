"""Planning of distillation: the checks before any work, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.costs import Cost, CostContext
from prunus.errors import RecipeError
from prunus.gguf.metadata import check_planned
from prunus.gguf.trained import trained_types
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.bits import frozen_bytes
from prunus.models.folder import PlannedFolder
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig, QatConfig
from prunus.training.plan import training_cost
from prunus.validation.data import read_tasks


def check_cached(config: DistillConfig, shares_vocabulary: bool, served: bool, where: str) -> None:
    """Refuse options that need more of the teacher than stored targets contain.

    Args:
        config: The options, with `targets: cached`.
        shares_vocabulary: Whether the student has the teacher's vocabulary.
        served: Whether a server gives the targets.
        where: The name of the config in the recipe, such as `students.width.distill`.

    Raises:
        RecipeError: Names the option, and what is allowed.
    """
    refused = {
        f"loss: {config.loss}": (config.loss != "forward_kl", "loss: forward_kl"),
        "states": (config.states.weight != 0, "states: none"),
        f"token_weights: {config.token_weights}": (config.token_weights != "uniform", "token_weights: uniform"),
        f"top_k: {config.top_k}": (config.top_k is not None, "no top_k, since targets.count sets how many are stored"),
        "data: student": (config.data == "student", "data: corpus or teacher"),
        f"temperature: {config.temperature:g} with targets.server": (
            served and config.temperature != 1,
            "temperature: 1, at which servers give probabilities",
        ),
        f"teacher_bits: {config.teacher_bits} with targets.server": (
            served and config.teacher_bits is not None,
            "no teacher_bits, since the server has the weights",
        ),
        "prune.vocab_size": (not shares_vocabulary, "the teacher's full vocabulary"),
    }
    for option, (applies, allowed) in refused.items():
        if applies:
            raise RecipeError(
                f"{where}.targets: cached stores only some of the teacher's probabilities, and {option} needs more; "
                f"allowed: {allowed}, or targets: online"
            )


def check_quantise(config: DistillConfig, model: Mapping[str, Any] | None, shape: Shape, where: str) -> None:
    """Refuse to train a student for a quantised file that cannot be written, or whose numbers cannot be trained.

    Args:
        config: The options.
        model: The config.json that the student inherits, or its own; None if the hub cannot be reached.
        shape: The student's shape.
        where: The name of the option, such as `students.width.qat.quantise`.

    Raises:
        RecipeError: Says why, and what is allowed.
    """
    if config.quantise is not None and config.tokens and model is not None:
        check_planned(model, shape, where)
        trained_types(PlannedFolder(Path(), model, shape, "BF16"), config.quantise, where)


def check_validation(config: DistillConfig, runtime: Runtime, has_template: bool, where: str, hub: Hub) -> None:
    """Refuse validation that cannot work, before any training. The tasks' conversations are read.

    Args:
        config: The options of a student that is distilled.
        runtime: Where it is trained.
        has_template: Whether its tokenizer has a chat template.
        where: The name of the config in the recipe, such as `students.width.distill`.
        hub: Source of conversations.

    Raises:
        RecipeError: The weights are sharded, or the tasks need a chat template and there is none.
        DataError: The conversations cannot be used.
        HubError: The hub does not provide them.
    """
    validation, where = config.validation, f"{where}.validation"
    if not (config.tokens and validation.times):
        return
    if distributed.shards_weights(runtime.shard) or runtime.deepspeed:
        option = "runtime.deepspeed" if runtime.deepspeed else "runtime.shard: true"
        raise RecipeError(f"{where}: not with {option}, whose weights are in parts; allowed: replicated weights")
    if validation.tasks and not has_template:
        raise RecipeError(f"{where}.tasks: conversations need a chat template, but the tokenizer has none")
    with hub.tolerate_missing():
        read_tasks(validation, validation.tasks, f"{where}.tasks")


def given_validation(config: DistillConfig, held_out: Step | Given, hub: Hub) -> dict[str, Step | Given]:
    """What validation reads, as inputs of the step; empty without validation."""
    validation = config.validation
    if not validation.times:
        return {}
    questions = hub.given_sources(tuple(validation.tasks.values()), "distill.validation.tasks")
    return {"held_out": held_out, **({"questions": questions} if validation.tasks else {})}


def validation_flops(config: DistillConfig, shape: Shape, teacher: Shape) -> float:
    """FLOPs of all measurements; every answer is assumed to be of maximum length."""
    validation = config.validation
    if not validation.times:
        return 0.0
    answers = validation.prompt_count + len(validation.tasks) * validation.items * (1 + validation.samples)
    written = answers * (validation.prompt_tokens + validation.max_new_tokens)
    models = [shape, *([teacher] if config.runs_teacher else [])]
    once = sum(validation.max_tokens * model.flops_per_token(config.sequence_length) for model in models)
    once += written * shape.flops_per_token(validation.max_new_tokens)
    return (1 + validation.times) * once


def cost(config: DistillConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the student's training, and the teacher's forward passes if it runs during training."""
    trained = training_cost(config, shape, context)
    for share, size in zip(config.nest.shares(context.inside), context.inside, strict=True):
        trained = replace(trained, flops=trained.flops + share * training_cost(config, size, context).flops)
    teacher = shape if isinstance(config, QatConfig) and config.teacher == "self" else context.teacher
    trained = replace(trained, flops=trained.flops + validation_flops(config, shape, teacher))
    if config.quantise is not None:  # the weights themselves, and the file's numbers in their place
        trained = replace(trained, memory_bytes=trained.memory_bytes + 4 * shape.parameters)
    if not config.runs_teacher:
        return trained
    passed: float = teacher.flops_per_token(config.sequence_length)
    if config.data == "student":  # sampling is one more forward pass of the student
        share = config.rollouts.share * (1 - config.rollouts.start)
        passed += share * shape.flops_per_token(config.sequence_length)
    return replace(
        trained,
        flops=trained.flops + trained.tokens * passed,
        memory_bytes=trained.memory_bytes + frozen_bytes(teacher, config.teacher_bits, context.frozen),
    )
