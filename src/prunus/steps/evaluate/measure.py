"""All tasks of an evaluation: each is run, stored by item, and summarised in comparison with the teacher."""

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
from prunus.steps.evaluate.answers import Answerer
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.harness import Harness
from prunus.steps.evaluate.skills import run_skill
from prunus.steps.evaluate.summary import Row, hidden_loss, summarise
from prunus.steps.evaluate.tasks import HARNESS, unit_of
from prunus.verify.skills import SKILLS

ITEMS = "items.jsonl"


def measure_tasks(
    config: EvaluateConfig,
    model: PreTrainedModel,
    tokenizer: Any,
    context: int,
    teacher: Path | None,
    out: Path,
    batch_size: int,
    console: Console,
) -> dict[str, Any]:
    """Run every task, write `items.jsonl` and `answers/`, and summarise.

    Args:
        config: The tasks and their options.
        model: The loaded model.
        tokenizer: Its tokenizer.
        context: Its maximum sequence length in tokens.
        teacher: The teacher's evaluation, whose items are paired with the model's.
        out: The step's folder.
        batch_size: Prompts at a time.
        console: Where progress is printed.

    Returns:
        `tasks`, the figures of each by name, and `warnings`. A task that cannot be run has a `hole`, the reason. Only
        the first process gets figures.

    Raises:
        NotFiniteError: The model gives NaN or infinity.
        DataError: The items of `teacher` are damaged.
    """
    answerer = Answerer(model, tokenizer, context, out, batch_size)
    theirs = read_items_of(teacher)
    tasks: dict[str, Any] = {}
    lines: list[str] = []
    for name, task in config.all_tasks().items():
        try:
            rows, facts = _run(name, task, config, answerer, console)
        except NotFiniteError:  # a fault of the model, not of the task
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
    """The items of an evaluation, by task; empty without an evaluation or tasks.

    Raises:
        DataError: The file is damaged; names the line.
    """
    found: dict[str, list[Row]] = {}
    file = evaluation / ITEMS if evaluation is not None else None
    if file is not None and file.is_file():
        for number, row in enumerate(read_json_lines(file, DataError), start=1):
            if not _is_row(row):
                raise DataError(
                    f"{file}, item {number}: expected `task`, `id` and `scores`, which are pairs of numbers"
                )
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


def _run(
    name: str, task: TaskConfig, config: EvaluateConfig, answerer: Answerer, console: Console
) -> tuple[list[Row], dict[str, Any]]:
    if (task.kind or name) in SKILLS:
        return run_skill(name, task, config, answerer, console)
    harness = Harness(answerer.model, answerer.tokenizer, answerer.context, answerer.out, answerer.batch_size)
    console.say(f"{name}: running lm-evaluation-harness")
    return harness.run(name, task, config, console), {}


def _nature(name: str, task: TaskConfig, figures: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """The main metric and its unit, and whether answers are generated."""
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
