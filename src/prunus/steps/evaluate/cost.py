"""Cost of tasks, in items and tokens, estimated from local data."""

from __future__ import annotations

import json
from dataclasses import dataclass

from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item, read_items
from prunus.steps.evaluate.rows import local_parts
from prunus.steps.evaluate.tasks import HARNESS
from prunus.verify.skills import SKILLS

_BYTES = 4  # bytes of text per token, approximately


@dataclass(frozen=True)
class TaskCost:
    """An estimate of one task.

    Attributes:
        items: Number of items; None if unknown, since the harness fetches them.
        tokens: Tokens of all prompts and answers, with answers at their maximum length.
        longest: Tokens of the longest item.
    """

    items: int | None = None
    tokens: int = 0
    longest: int = 0


def task_costs(config: EvaluateConfig) -> dict[str, TaskCost]:
    """The cost of each task, by name.

    Raises:
        DataError: A skill's items cannot be read.
    """
    found = {}
    for name, task in config.all_tasks().items():
        kind = task.kind or name
        if kind not in SKILLS:
            found[name] = _of_harness(task, kind, f"evaluate.tasks.{name}")
            continue
        items = read_items(task, kind, f"evaluate.tasks.{name}")
        each = [_tokens(item, task.max_new_tokens) for item in items]
        found[name] = TaskCost(len(items), sum(each) * task.samples, max(each))
    return found


def _of_harness(task: TaskConfig, kind: str, where: str) -> TaskCost:
    """A task of the harness: few-shot examples and a question are read once for all of its choices."""
    if task.data is None:
        return TaskCost()
    rows = [row for _, part, _ in local_parts(kind, task.data, where) for row in part[: task.limit]]
    known = HARNESS.get(kind)
    shots = task.num_fewshot if task.num_fewshot is not None else known.num_fewshot if known else 0
    sizes = [len(json.dumps(row, ensure_ascii=False).encode()) // _BYTES for row in rows]
    mean, contexts = sum(sizes) // max(len(sizes), 1), known.contexts if known else 1
    each = [size + shots * mean + (task.max_new_tokens if known and known.generates else 0) for size in sizes]
    return TaskCost(len(rows), sum(each) * contexts, max(each, default=0))


def _tokens(item: Item, new: int) -> int:
    """Tokens of the prompts and answers of all turns; each turn reads the whole conversation so far."""
    prompt = len(json.dumps([item.messages, item.tools], ensure_ascii=False).encode()) // _BYTES
    total = 0
    for then in ["", *item.then]:
        prompt += len(then.encode()) // _BYTES
        total += prompt + new
        prompt += new
    return total
