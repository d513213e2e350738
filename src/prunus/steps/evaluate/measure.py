"""All tasks of an evaluation: each asked, saved by item, and summed up beside the teacher's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.environment import as_written
from prunus.errors import DataError, NotFiniteError, PrunusError
from prunus.files import read_json_lines, replace_text
from prunus.keys import hide
from prunus.steps.evaluate.ask import Asker
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.harness import Harness
from prunus.steps.evaluate.skills import ask_skill
from prunus.steps.evaluate.summary import Row, hidden_loss, summarise
from prunus.steps.evaluate.tasks import HARNESS, unit_of
from prunus.verify.skills import SKILLS

ITEMS = "items.jsonl"


def measure_tasks(
    config: EvaluateConfig,
    model: PreTrainedModel,
    tokenizer: Any,
    context: int,
    beside: Path | None,
    out: Path,
    batch_size: int,
    console: Console,
) -> dict[str, Any]:
    """Ask every task, write `items.jsonl` and `answers/`, and sum up.

    Args:
        config: What to ask.
        model: The model, loaded.
        tokenizer: Its tokenizer.
        context: Tokens that it was made for.
        beside: The teacher's evaluation, to be paired with.
        out: The step's folder.
        batch_size: Prompts at a time.
        console: Where progress is shown.

    Returns:
        `tasks`, the figures of each by name, and `warnings`. A task whose data cannot be had is a `hole`. Of several
        processes the first alone knows them.

    Raises:
        NotFiniteError: The model gives NaN or infinity.
        DataError: The items of `beside` are damaged.
    """
    asker = Asker(model, tokenizer, context, out, batch_size)
    theirs = read_items_of(beside)
    tasks: dict[str, Any] = {}
    lines: list[str] = []
    for name, task in config.asked().items():
        try:
            rows, facts = _ask(name, task, config, asker, console)
        except NotFiniteError:  # a fault of the model, and no hole of the task
            raise
        except PrunusError as error:
            reason = hide(as_written(str(error)))
            console.warn(f"{name}: {reason}")
            tasks[name] = {"hole": reason}
            continue
        if distributed.rank():
            continue
        lines += (json.dumps({"task": name, **row}, allow_nan=False) + "\n" for row in rows)
        figures = summarise(rows, theirs.get(name, ()), config)
        tasks[name] = {**figures, **facts, **_nature(name, task, figures, rows)}
        if (facts.get("judge") or {}).get("hole"):
            console.warn(f"{name}: {facts['judge']['hole']}")
    if distributed.rank() == 0:
        replace_text(out / ITEMS, "".join(lines))
    return {"tasks": tasks, "warnings": hidden_loss(tasks)}


def read_items_of(evaluation: Path | None) -> dict[str, list[Row]]:
    """The items of an evaluation, by task; none where there is none, or it asked no task.

    Raises:
        DataError: The file is damaged; names the line.
    """
    found: dict[str, list[Row]] = {}
    file = evaluation / ITEMS if evaluation is not None else None
    if file is not None and file.is_file():
        for number, row in enumerate(read_json_lines(file, DataError), start=1):
            if not _is_row(row):
                raise DataError(f"{file}, item {number}: expected `task`, `id` and `scores` of pairs of numbers")
            found.setdefault(row["task"], []).append(row)
    return found


def _is_row(row: Any) -> bool:
    """Whether a value has the form of an item's row."""
    if not isinstance(row, dict) or not isinstance(row.get("task"), str) or not isinstance(row.get("scores"), dict):
        return False
    pairs = row["scores"].values()
    return isinstance(row.get("id"), str) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, (int, float)) for part in pair)
        for pair in pairs
    )


def _ask(
    name: str, task: TaskConfig, config: EvaluateConfig, asker: Asker, console: Console
) -> tuple[list[Row], dict[str, Any]]:
    if (task.kind or name) in SKILLS:
        return ask_skill(name, task, config, asker, console)
    harness = Harness(asker.model, asker.tokenizer, asker.context, asker.out, asker.batch_size)
    console.say(f"{name}: by lm-evaluation-harness")
    return harness.ask(name, task, config), {}


def _nature(name: str, task: TaskConfig, figures: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """The metric that counts and what it is counted in, and whether the task is answered in words."""
    kind = task.kind or name
    skill, known = SKILLS.get(kind), HARNESS.get(kind)
    names = skill.first if skill else known.metrics if known else tuple(figures["metrics"])
    first = next((metric for metric in names if metric in figures["metrics"]), None)
    unit = None
    if first:
        items = (row["scores"].get(first, (0, 1)) for row in rows)
        bounded = all(0 <= total <= count for total, count in items)
        unit = skill.metrics[first] if skill else unit_of(first, bounded)
    return {"kind": kind, "first": first, "unit": unit, "generates": bool(skill or (known and known.generates))}
