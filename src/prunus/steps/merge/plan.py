"""Planning of a merge: checks before any work, its inputs, and its cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from prunus.costs import Cost, CostContext
from prunus.errors import RecipeError, ShapeError
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.steps.merge.config import EvolveConfig, MergeConfig
from prunus.steps.merge.questions import check_not_reported, read_tasks


def one_shape(shapes: Mapping[str, Shape]) -> Shape:
    """The common shape of models, given by name.

    Raises:
        ShapeError: They differ; names the weights.
    """
    (first_name, first), *others = shapes.items()
    for other_name, other in others:
        mine, theirs = dict(first.tensors()), dict(other.tensors())
        names = [weight for weight in {**mine, **theirs} if mine.get(weight) != theirs.get(weight)]
        if names:
            pairs = [f"{name}: {theirs.get(name, 'missing')} and {mine.get(name, 'missing')}" for name in names[:8]]
            more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
            raise ShapeError("\n  ".join([f"{other_name} and {first_name} have different shapes:", *pairs, *more]))
    return first


def check_fitness(evolve: EvolveConfig, reported: Collection[str], has_template: bool, where: str, hub: Hub) -> None:
    """Read the conversations for fitness, and refuse those that the evaluation reports.

    Args:
        evolve: The options.
        reported: The `questions.conversation_key` of every item of the evaluation.
        has_template: Whether the models have a chat template.
        where: The name of the option, for messages.
        hub: Source of conversations.

    Raises:
        RecipeError: They are from a test set or in the evaluation, or the models have no chat template.
        DataError: They cannot be used.
        HubError: The hub does not provide them.
    """
    place = f"{where}.evolve"
    evolve.check_public(place)
    if not has_template:
        raise RecipeError(f"{place}.tasks: conversations need a chat template, but the models' tokenizer has none")
    with hub.tolerate_missing():
        check_not_reported(read_tasks(evolve, place), reported, evolve, place)


def given_fitness(config: MergeConfig, hub: Hub) -> dict[str, Step | Given]:
    """The conversations for fitness as an input of the step; empty without evolution."""
    if not config.evolve.trials:
        return {}
    return {"data": hub.given_sources(tuple(config.evolve.tasks.values()), "merge.evolve.tasks")}


def cost(config: MergeConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate one weight of every model in memory; for an evolution, all trials with answers of maximum length."""
    evolve, weights = config.evolve, shape.parameters * 4
    if not evolve.trials:
        largest = max(prod(size) for _, size in shape.tensors())
        return Cost(memory_bytes=len(context.inputs) * 4 * largest, disk_bytes=weights)
    tokens = (evolve.trials + evolve.finalists + 1) * len(evolve.tasks) * evolve.items * evolve.max_new_tokens
    return Cost(tokens, tokens * shape.flops_per_token(evolve.max_new_tokens), weights, 2 * weights)
