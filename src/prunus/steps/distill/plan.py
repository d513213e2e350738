"""Planning of distillation: the checks before any work, and the cost."""

from __future__ import annotations

from dataclasses import replace

from prunus.costs import Cost, CostContext
from prunus.errors import RecipeError
from prunus.models.bits import frozen_bytes
from prunus.models.shape import Shape
from prunus.steps.distill.config import DistillConfig
from prunus.training.plan import training_cost


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


def cost(config: DistillConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost: the student's training, and the teacher's forward passes if it runs during training."""
    trained = training_cost(config, shape, context)
    if not config.runs_teacher:
        return trained
    passed = context.teacher.flops_per_token(config.sequence_length)
    if config.data == "student":  # sampling is one more forward pass of the student
        passed += shape.flops_per_token(config.sequence_length)
    return replace(
        trained,
        flops=trained.flops + trained.tokens * passed,
        memory_bytes=trained.memory_bytes + frozen_bytes(context.teacher, config.teacher_bits),
    )
