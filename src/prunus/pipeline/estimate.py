"""What a step of a plan will cost."""

from __future__ import annotations

from contextlib import suppress

from prunus.costs import Cost, CostContext, cost
from prunus.data.chat_size import UNKNOWN, ChatSize, chat_size
from prunus.data.config import ChatSource
from prunus.errors import DataError
from prunus.graph.steps import Given, Step
from prunus.pipeline.machine import on_gpu
from prunus.pipeline.planned import Plan


def cost_of(step: Step, plan: Plan) -> Cost:
    """Estimate one step of a plan."""
    shape = {**plan.students, **plan.references}.get(step.subject, plan.teacher)
    return cost(step.config, shape, context_of(step, plan))


def context_of(step: Step, plan: Plan) -> CostContext:
    """What the cost of a step depends on in addition to its options and its model."""
    runtime = plan.recipe.runtime
    half = runtime.precision == "bfloat16" or (runtime.precision == "auto" and on_gpu(runtime))
    return CostContext(
        plan.teacher, runtime.device_batch_size, frozenset(step.inputs), _chat_of(step), half,
        runtime.gradient_checkpointing, plan.nests.get(step.subject, ()),
    )  # fmt: skip


def _chat_of(step: Step) -> ChatSize:
    """The chat data that a step reads, itself or as the tokens that an earlier step makes of it."""
    reader = step.inputs.get("tokens", step)
    sources = reader.inputs.get("sources") if isinstance(reader, Step) else None
    if isinstance(sources, Given) and all(isinstance(source, ChatSource) for source in sources.value):
        with suppress(DataError):  # a row in the middle; the step that reads it names it
            return chat_size(sources.value)
    return UNKNOWN
