"""Which options make a student's distillation fit in the memory of one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunus.config import parse
from prunus.costs import CostContext, cost
from prunus.errors import RecipeError
from prunus.graph.steps import Step
from prunus.models.bits import check_bits
from prunus.models.shape import Shape
from prunus.pipeline.estimate import context_of
from prunus.pipeline.planned import Plan
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.plan import check_cached
from prunus.training.plan import check_rank

LORA: dict[str, Any] = {"lora": 64}
BITS: dict[str, Any] = {"teacher_bits": 8}
STATE: dict[str, Any] = {"optimizer": "adamw_8bit"}
CACHED: dict[str, Any] = {"targets": "cached", "states": "none"}


@dataclass(frozen=True)
class Fit:
    """The memory of one student's distillation.

    Attributes:
        student: Its name.
        changes: The options that differ from the recipe's, in words; empty if none does.
        flags: The same as flags of `prunus run`.
        memory: Bytes on one device, without libraries.
    """

    student: str
    changes: str
    flags: str
    memory: int


@dataclass(frozen=True)
class _Variant:
    """Options that lower the memory.

    Attributes:
        saves: Whether the micro-batch is 1 and activations are recomputed.
        distill: Options of the distillation.
    """

    saves: bool
    distill: Mapping[str, Any]


def _variants() -> tuple[_Variant, ...]:
    """From the recipe's own options to those that change the training most."""
    changes: tuple[dict[str, Any], ...] = (
        {},
        BITS,
        STATE,
        STATE | BITS,
        CACHED,
        STATE | CACHED,
        LORA,
        LORA | BITS,
        LORA | CACHED,
    )
    return _Variant(False, {}), *(_Variant(True, change) for change in changes)


def fits(plan: Plan) -> Iterator[Fit]:
    """The memory of each student's distillation on one GPU, with its options and with others that need less.

    Products and frozen weights are assumed to be in 16 bits.
    """
    served = plan.recipe.targets.server.url is not None
    for step in plan.steps:
        if step.label == "distill" and isinstance(step.config, DistillConfig):
            shape = plan.students[step.subject]
            context = replace(context_of(step, plan), half=True)
            for variant in _variants():
                yield from _fit(step, step.config, shape, context, variant, served)


def _fit(
    step: Step, config: DistillConfig, shape: Shape, context: CostContext, variant: _Variant, served: bool
) -> Iterator[Fit]:
    """One variant; nothing if it is not allowed, or changes nothing."""
    where = f"students.{step.subject}.distill"
    given = config.model_dump()
    changed = {name: value for name, value in variant.distill.items() if name != "states" or config.compares_states}
    try:
        other = parse(DistillConfig, {**given, **variant.distill}, where)
        check_rank(other, shape, where)
        if other.targets == "cached":
            check_cached(other, shape.vocab_size == context.teacher.vocab_size, served, where)
        check_bits(other.teacher_bits, context.teacher, where)
    except RecipeError:
        return
    if variant.distill and other == config:
        return
    words = [f"{name}: {value}" for name, value in changed.items()]
    flags = [f"--{where}.{name} {value}" for name, value in changed.items()]
    if variant.saves:
        context = replace(context, device_batch_size=1, recompute=True)
        words = ["device_batch_size: 1", "gradient_checkpointing", *words]
        flags = ["--runtime.device-batch-size 1 --runtime.gradient-checkpointing", *flags]
    yield Fit(step.subject, ", ".join(words), " ".join(flags), cost(other, shape, context).memory_bytes)
