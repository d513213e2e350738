"""Checks of an evaluation's tasks before any work, without loading a model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

from prunus.errors import RecipeError, among
from prunus.fingerprint import digest, fingerprint_files
from prunus.judging.prompts import judge_prompts
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import files_of, read_items
from prunus.steps.evaluate.rows import local_parts
from prunus.steps.evaluate.tasks import HARNESS
from prunus.verify.skills import SKILLS
from prunus.world.config import REVISION, WORLD


def check_tasks(config: EvaluateConfig, prefix: str = "evaluate.tasks.") -> None:
    """Read every task's data, and look up every name.

    Args:
        config: The options.
        prefix: What messages have before a task's name.

    Raises:
        DataError: Data cannot be read.
        RecipeError: A task is unknown, or the package that it needs is not installed.
    """
    judge_prompts(config.judge, "evaluate.judge")
    for name, task in config.all_tasks().items():
        kind = task.kind or name
        if kind in SKILLS:
            read_items(task, kind, prefix + name)
            continue
        _check_known(kind, prefix + name)
        if task.data is not None:
            list(local_parts(kind, task.data, prefix + name))


def check_chat(config: EvaluateConfig, has_template: bool, who: str) -> None:
    """Refuse conversations with a model that has no chat template.

    Raises:
        RecipeError: Names the model, and what helps.
    """
    if config.converses and config.chat_template == "own" and not has_template:
        name = next(name for name, task in config.all_tasks().items() if (task.kind or name) in SKILLS)
        raise RecipeError(
            f"evaluate.tasks.{name}: needs a chat template, and {who} has none; set "
            "evaluate.chat_template: plain, or remove the task"
        )


def tasks_fingerprint(config: EvaluateConfig) -> str | None:
    """A digest of all tasks' local data; None if there are none."""
    digests = {
        name: found for name, task in config.all_tasks().items() if (found := _files(task, f"evaluate.tasks.{name}"))
    }
    if config.judge.prompts is not None:
        digests["judge"] = fingerprint_files([Path(config.judge.prompts).expanduser()])
    return digest(digests) if digests else None


def _files(task: TaskConfig, where: str) -> str | None:
    if task.data is None:
        return None
    if task.data == WORLD:
        return digest([WORLD, REVISION])  # the world's options are part of the task's
    place = Path(task.data).expanduser()
    files = (
        sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else files_of(task.data, where)
    )
    beside = place.parent / "possible_answer" / place.name
    gold = [Path(task.gold).expanduser()] if task.gold is not None else [beside] if beside.is_file() else []
    gold = [file for path in gold for file in (sorted(path.glob("*.json*")) if path.is_dir() else [path])]
    return fingerprint_files([*files, *gold])


def _check_known(kind: str, where: str) -> None:
    """Refuse a task that the harness does not have, or any of its tasks if it is not installed."""
    installed = importlib.util.find_spec("lm_eval") is not None
    if kind in HARNESS and not installed:
        raise RecipeError(f"{where}: lm-evaluation-harness is not installed; `pip install 'prunus[evaluate]'`")
    if installed and kind not in SKILLS and (missing := _not_installed("lm_eval")):
        raise RecipeError(
            f"{where}: lm-evaluation-harness is installed without {', '.join(missing)}, which it needs; "
            "`pip install 'prunus[evaluate]'` installs everything"
        )
    if kind in HARNESS:
        return
    known = {*SKILLS, *HARNESS, *(harness_tasks() if installed else ())}
    if kind not in known:
        more = "" if installed else "; after `pip install 'prunus[evaluate]'` also those of lm-evaluation-harness"
        listed = among(kind, ("base", *sorted(known)), everything="docs/evaluate.md")
        raise RecipeError(f"{where}: unknown task {kind!r}{listed}{more}")


@cache
def _not_installed(package: str) -> list[str]:
    """The missing requirements of an installed package, without extras."""
    needed = [Requirement(text) for text in importlib.metadata.requires(package) or []]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return sorted(one.name for one in needed if not any(importlib.metadata.distributions(name=one.name)))


@cache
def harness_tasks() -> frozenset[str]:
    """The names of all tasks of the harness; slow, since it reads some ten thousand files."""
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager().task_index)
