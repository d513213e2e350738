"""Distillation as a plan sees it: what is refused before any work, and what it costs."""

from __future__ import annotations

from dataclasses import replace

from prunus.costs import Cost, CostContext
from prunus.errors import RecipeError
from prunus.models.shape import Shape
from prunus.steps.distill.config import DistillConfig
from prunus.training.plan import training_cost


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


def cost(config: DistillConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate it: the student's training, and the teacher where it runs beside it."""
    trained = training_cost(config, shape, context)
    if not config.runs_teacher:
        return trained
    passed = context.teacher.flops_per_token(config.sequence_length)
    if config.data == "student":  # which reads what it writes once more to write it
        passed += shape.flops_per_token(config.sequence_length)
    return replace(
        trained,
        flops=trained.flops + trained.tokens * passed,
        memory_bytes=trained.memory_bytes + context.teacher.parameters * 4,
    )
