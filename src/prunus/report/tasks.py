"""The tables of a run's tasks: scores with their intervals, and paired differences to the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.console import human, human_bytes
from prunus.report.records import Result, Run
from prunus.report.table import row_name

MISSING = "—"
"""Stands for a missing score."""
NOISE = "≈"
"""Marks a difference whose interval contains 0."""

_LLAMA = 8_030_261_248  # parameters of Llama-3.1-8B, the teacher of NVIDIA's students
_PARTS = 16  # columns of a table of parts, at most
_SHOWN = 2  # items of each skill whose answers are shown
PUBLISHED: dict[str, dict[str, float]] = {
    "Phi-2 2.7B": {"winogrande": 74.0, "arc_challenge": 61.0, "mmlu": 57.5, "hellaswag": 75.2, "gsm8k": 55.0},
    "Gemma2 2B": {"winogrande": 70.9, "arc_challenge": 55.4, "mmlu": 51.3, "hellaswag": 73.0, "gsm8k": 23.9},
    "Qwen2 1.5B": {"winogrande": 66.2, "arc_challenge": 43.9, "mmlu": 56.5, "hellaswag": 66.6, "gsm8k": 58.5},
    "Minitron 4B depth": {"winogrande": 72.1, "arc_challenge": 52.6, "mmlu": 58.7, "hellaswag": 73.2, "gsm8k": 16.8},
    "Minitron 4B width": {"winogrande": 73.5, "arc_challenge": 55.6, "mmlu": 60.5, "hellaswag": 76.1, "gsm8k": 41.2},
    "Llama-3.1 8B": {"winogrande": 77.3, "arc_challenge": 57.9, "mmlu": 65.3, "hellaswag": 81.8, "gsm8k": 48.6},
}
"""Base models in NVIDIA's table 2 (arXiv 2408.11796), in percent."""


@dataclass(frozen=True)
class Table:
    """A table as shown: the names of its columns, and rows of cells."""

    header: tuple[str, ...]
    rows: list[list[str]]


def evaluated_tasks(run: Run) -> list[str]:
    """The tasks that any model was evaluated on, in order."""
    return list(dict.fromkeys(name for result in run.of_kind("evaluate") for name in tasks_of(result)))


def scores(run: Run) -> Table:
    """Each model's score in each task, ± half its interval; shares in percent.

    Rows with NVIDIA's published figures follow if the teacher has the size of theirs.
    """
    names = evaluated_tasks(run)
    columns = [_titled(run, name) for name in names]
    rows = [[row_name(run, r), *(_score(tasks_of(r).get(name)) for name in names)] for r in run.of_kind("evaluate")]
    chances = [_chance(run, name) for name in names]
    if any(chances):
        rows.append(["by chance", *chances])
    teacher = run.find("teacher", "evaluate")
    if names and teacher and teacher.json("results.json")["parameters"] == _LLAMA:
        for model, known in PUBLISHED.items():
            rows.append([f"{model}, by NVIDIA", *(f"{known[name]:.1f}" if name in known else "" for name in names)])
    return Table(("model", *columns), rows)


def differences(run: Run) -> Table:
    """Each model's paired difference to the teacher in each task, with its interval; ≈ where that contains 0."""
    names = evaluated_tasks(run)
    rows = []
    for result in run.of_kind("evaluate"):
        cells = [_difference(tasks_of(result).get(name)) for name in names]
        if any(cells):
            rows.append([row_name(run, result), *cells])
    return Table(("model", *names), rows)


def parts(run: Run) -> list[tuple[str, Table]]:
    """The scores by part of each task that has 2 to 16 parts; a page has no room for MMLU's subjects."""
    found = []
    for name in evaluated_tasks(run):
        results = [result for result in run.of_kind("evaluate") if "groups" in tasks_of(result).get(name, {})]
        groups = [tasks_of(result)[name]["groups"] for result in results]
        columns = list(dict.fromkeys(group for of in groups for group in of))
        if not 1 < len(columns) <= _PARTS:
            continue
        rows = []
        for result, of in zip(results, groups, strict=True):
            whole = {key: tasks_of(result)[name].get(key) for key in ("first", "unit")}
            rows.append([row_name(run, result), *(_score({**of.get(group, {}), **whole}) for group in columns)])
        found.append((name, Table(("model", *columns), rows)))
    return found


def health(run: Run) -> Table:
    """The state of written answers over all tasks: mean tokens, repeated 4-grams, truncated and empty answers."""
    rows = []
    for result in run.of_kind("evaluate"):
        written = [task["metrics"] for task in tasks_of(result).values() if "length" in task.get("metrics", {})]
        if written:
            cells = [_mean(written, name) for name in ("length", "repetition", "cut_off", "empty", "too_long")]
            rows.append([row_name(run, result), f"{cells[0]:.0f}", *(f"{cell:.1%}" for cell in cells[1:])])
    return Table(("model", "tokens per answer", "repeated 4-grams", "truncated", "empty", "prompt too long"), rows)


def sizes(run: Run) -> Table:
    """What each model takes up: parameters, weights, and key-value cache for each token of context."""
    rows = []
    for name, result in _last(run).items():
        if model := _efficiency(result, "model"):
            cells = [human(model["parameters"]), human_bytes(model["bytes"]), human_bytes(model["kv_bytes_per_token"])]
            rows.append([name, *cells])
    return Table(("model", "parameters", "weights", "KV cache per token"), rows)


def speed(run: Run) -> Table:
    """What was timed of each model, with the ratio to the teacher in the same run; no row where nothing was timed."""
    rows = []
    for name, result in _timed(run).items():
        model, teacher = _efficiency(result, "model"), _efficiency(result, "teacher")
        memory = human_bytes(model["memory_bytes"]) if model.get("memory_bytes") else MISSING
        rows.append([name, memory, *(_rate(model, teacher, kind) for kind in ("prefill", "decode"))])
    return Table(("model", "memory", "prefill, tokens/s", "decode, tokens/s"), rows)


def timed_on(run: Run) -> str:
    """The hardware on which speed was measured."""
    return "; ".join(dict.fromkeys(result.record["hardware"] for result in _timed(run).values()))


def _last(run: Run) -> dict[str, Result]:
    """The last evaluation of each model by its name: training changes neither size nor speed."""
    return {result.subject: result for result in run.of_kind("evaluate")}


def _timed(run: Run) -> dict[str, Result]:
    models = {name: (result, _efficiency(result, "model")) for name, result in _last(run).items()}
    return {name: result for name, (result, model) in models.items() if model.get("prefill") or model.get("decode")}


def _efficiency(result: Result, whose: str) -> dict[str, Any]:
    return result.json("results.json").get("efficiency", {}).get(whose) or {}


def notes(run: Run) -> list[str]:
    """Warnings: missing scores, missing grades of a judge, and written answers that are worse than choices."""
    found = []
    for result in run.of_kind("evaluate"):
        name = row_name(run, result)
        for task, facts in tasks_of(result).items():
            judge = facts.get("judge") or {}
            if facts.get("hole"):
                found.append(f"{name}: {task} has no score: {facts['hole']}")
            if judge.get("hole"):
                found.append(f"{name}: {task} has {judge['graded']} of {judge['asked']} grades: {judge['hole']}")
            elif judge.get("malformed") or judge.get("failed"):
                lost = f"{judge['malformed']} verdicts without a grade, {judge['failed']} failed requests"
                found.append(f"{name}: {task} has {judge['graded']} of {judge['asked']} grades: {lost}")
        found += [f"{name}: {warning}" for warning in result.json("results.json").get("warnings", [])]
    return found


def answers(run: Run) -> list[dict[str, Any]]:
    """The first items of each skill, with every model's answer."""
    shown: dict[str, list[tuple[str, str]]] = {}
    for result in run.of_kind("evaluate"):
        for name in sorted(name for name in result.files if name.startswith("answers/")):
            for line in result.lines(name)[:_SHOWN]:
                said = "\n\n".join(line["answers"][0]) or MISSING
                task = name.removeprefix("answers/").removesuffix(".jsonl")
                prompt = f"{task}, {line['id']}: " + "\n\n".join(map(str, line["said"]))
                shown.setdefault(prompt, []).append((row_name(run, result), said))
    return [{"prompt": prompt, "answers": given} for prompt, given in shown.items()]


def tasks_of(result: Result) -> dict[str, dict[str, Any]]:
    """The tasks of an evaluation by name."""
    found: dict[str, dict[str, Any]] = result.json("results.json").get("tasks", {})
    return found


def _titled(run: Run, name: str) -> str:
    """A task with its primary metric, and the unit of a metric that is neither a share nor a grade."""
    found = (tasks_of(result).get(name, {}) for result in run.of_kind("evaluate"))
    task = next((task for task in found if task.get("first")), None)
    if task is None:
        return name
    unit = {"nats": ", nats", "bits": ", bits"}.get(task.get("unit", ""), "")
    less = ", lower is better" if less_is_better(task) else ""
    return f"{name} ({task['first']}{unit}{less})"


def _chance(run: Run, name: str) -> str:
    """The score of guessing in a multiple-choice task."""
    found = (tasks_of(result).get(name, {}).get("metrics", {}).get("chance") for result in run.of_kind("evaluate"))
    figure = next((figure for figure in found if figure), None)
    return f"{100 * figure['value']:.1f}" if figure else ""


def primary(task: dict[str, Any] | None) -> dict[str, Any] | None:
    """The primary metric of a task with its interval; None where it is missing."""
    return task.get("metrics", {}).get(task["first"]) if task and task.get("first") else None


def value_of(task: dict[str, Any] | None) -> float | None:
    """The primary metric of a task as shown, shares in percent; None where it is missing."""
    figure = primary(task)
    return None if figure is None or task is None else scale_of(task)[0] * float(figure["value"])


def scale_of(task: dict[str, Any]) -> tuple[float, int]:
    """The factor by which the primary metric of a task is shown (100 for shares: percent), and its decimals."""
    return {"share": (100.0, 1), "grade": (1.0, 1), "points": (1.0, 1)}.get(_unit(task), (1.0, 3))


def is_share(task: dict[str, Any]) -> bool:
    """Whether the primary metric of a task is a share, from 0 to 1."""
    return bool(task.get("first")) and _unit(task) == "share"


def less_is_better(task: dict[str, Any]) -> bool:
    """Whether a task measures a loss."""
    return task.get("unit") in ("nats", "bits", "perplexity")


def _unit(task: dict[str, Any]) -> str:
    return task.get("unit") or ("grade" if str(task["first"]).startswith("judge") else "share")


def _score(task: dict[str, Any] | None) -> str:
    figure = primary(task)
    if figure is None or task is None:
        return MISSING
    scale, digits = scale_of(task)
    half = scale * (figure["high"] - figure["low"]) / 2
    return f"{scale * figure['value']:.{digits}f} ± {half:.{digits}f}"


def _difference(task: dict[str, Any] | None) -> str:
    figure = primary(task)
    if figure is None or task is None or not figure.get("difference"):
        return ""
    scale, digits = scale_of(task)
    value, low, high = (scale * figure["difference"][part] for part in ("value", "low", "high"))
    noise = f" {NOISE}" if low <= 0 <= high else ""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{noise}"


def _mean(written: Sequence[dict[str, Any]], name: str) -> float:
    found = [metrics[name]["value"] for metrics in written if name in metrics]
    return sum(found) / len(found) if found else 0.0


def _rate(model: dict[str, Any], teacher: dict[str, Any], name: str) -> str:
    if not model.get(name):
        return MISSING
    beside = f" ({model[name] / teacher[name]:.2f}×)" if teacher.get(name) else ""
    return f"{model[name]:.4g}{beside}"
