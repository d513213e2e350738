"""Planning of an evaluation: checks before any work, its inputs, and its cost."""

from __future__ import annotations

from collections.abc import Iterator

from prunus.costs import Cost, CostContext
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step
from prunus.inference.config import LOGIT_BYTES
from prunus.models.shape import Shape
from prunus.steps.evaluate.check import tasks_fingerprint
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.cost import task_costs
from prunus.steps.evaluate.items import Item, read_items
from prunus.verify.skills import SKILLS

_LOGITS = 6  # logits, log-probabilities and KL of a part, of both models
_STATES = 4  # hidden states and the MLP's values of a layer


def check_same_tokens(model: Shape, teacher: Shape, where: str) -> None:
    """Refuse a teacher with another vocabulary size than the model.

    Raises:
        RecipeError: Gives both sizes, and what would work.
    """
    if model.vocab_size != teacher.vocab_size:
        raise RecipeError(
            f"{where}: it has {teacher.vocab_size} tokens and the model {model.vocab_size}, so they tokenise text "
            "differently, and sums over tokens are not comparable; evaluate each separately"
        )


def skill_items(config: EvaluateConfig) -> Iterator[Item]:
    """Every item of the evaluation's skills.

    Raises:
        DataError: Data cannot be read.
    """
    for name, task in config.all_tasks().items():
        if (task.kind or name) in SKILLS:
            yield from read_items(task, task.kind or name, f"evaluate.tasks.{name}")


def given_data(config: EvaluateConfig) -> dict[str, Step | Given]:
    """A fingerprint of the tasks' local data as an input of the step, if there are any."""
    found = tasks_fingerprint(config)
    return {} if found is None else {"data": Given(None, found)}


def cost(config: EvaluateConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate held-out text (both models) and local tasks (one model); data that the harness fetches are unknown."""
    models = [shape, *([context.teacher] if "teacher" in context.inputs else [])]
    tasks = task_costs(config).values()
    task_tokens = sum(task.tokens for task in tasks)
    longest = min(max((task.longest for task in tasks), default=0), shape.max_position_embeddings)
    flops = sum(config.max_tokens * model.flops_per_token(config.sequence_length) for model in models)
    cache = context.device_batch_size * longest * shape.kv_cache_bytes(context.frozen)
    states = (
        _STATES * context.device_batch_size * config.sequence_length * 4 * (shape.hidden_size + shape.intermediate_size)
    )
    memory = sum(model.parameters * context.frozen for model in models) + max(cache, states + _LOGITS * LOGIT_BYTES)
    return Cost(
        config.max_tokens + task_tokens, flops + task_tokens * shape.flops_per_token(max(longest, 2)), memory, 0
    )
