"""What a step of a plan will cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext, cost
from prunus.graph.steps import Step
from prunus.pipeline.planned import Plan


def cost_of(step: Step, plan: Plan) -> Cost:
    """Estimate one step of a plan."""
    shape = {**plan.students, **plan.references}.get(step.subject, plan.teacher)
    context = CostContext(plan.teacher, plan.recipe.runtime.device_batch_size, frozenset(step.inputs))
    return cost(step.config, shape, context)
