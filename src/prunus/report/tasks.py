"""The tables of a run's tasks: scores with their intervals, paired differences to the teacher, holes as holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.console import human, human_bytes
from prunus.report.records import Result, Run
from prunus.report.table import row_name

HOLE = "—"
NOISE = "≈"
"""Marks a difference whose interval holds 0: as good as none."""

_ORIGINAL = 8_030_261_248  # parameters of Llama-3.1-8B, to whose run NVIDIA's figures belong
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
    """A table as it is shown: the names of its columns, and rows of cells."""

    header: tuple[str, ...]
    rows: list[list[str]]


def asked(run: Run) -> list[str]:
    """The tasks that some model was asked, in order."""
    return list(dict.fromkeys(name for result in run.of_kind("evaluate") for name in _tasks(result)))


def scores(run: Run) -> Table:
    """Each model's score in each task, ± half its interval; shares in percent. NVIDIA's own rows where they belong."""
    names = asked(run)
    columns = [_titled(run, name) for name in names]
    rows = [[row_name(run, r), *(_score(_tasks(r).get(name)) for name in names)] for r in run.of_kind("evaluate")]
    chances = [_chance(run, name) for name in names]
    if any(chances):
        rows.append(["by chance", *chances])
    teacher = run.find("teacher", "evaluate")
    if names and teacher and teacher.json("results.json")["parameters"] == _ORIGINAL:
        for model, known in PUBLISHED.items():
            rows.append([f"{model}, by NVIDIA", *(f"{known[name]:.1f}" if name in known else "" for name in names)])
    return Table(("model", *columns), rows)


def differences(run: Run) -> Table:
    """Each model's paired difference to the teacher in each task, with its interval; ≈ where that holds 0."""
    names = asked(run)
    rows = []
    for result in run.of_kind("evaluate"):
        cells = [_difference(_tasks(result).get(name)) for name in names]
        if any(cells):
            rows.append([row_name(run, result), *cells])
    return Table(("model", *names), rows)


def parts(run: Run) -> list[tuple[str, Table]]:
    """The scores of each task that comes in a few parts, part by part; MMLU's subjects are too many for a page."""
    found = []
    for name in asked(run):
        results = [result for result in run.of_kind("evaluate") if "groups" in _tasks(result).get(name, {})]
        groups = [_tasks(result)[name]["groups"] for result in results]
        columns = list(dict.fromkeys(group for of in groups for group in of))
        if not 1 < len(columns) <= _PARTS:
            continue
        rows = []
        for result, of in zip(results, groups, strict=True):
            whole = {key: _tasks(result)[name].get(key) for key in ("first", "unit")}
            rows.append([row_name(run, result), *(_score({**of.get(group, {}), **whole}) for group in columns)])
        found.append((name, Table(("model", *columns), rows)))
    return found


def health(run: Run) -> Table:
    """How writing goes over all tasks answered in words: mean tokens, repeated 4-grams, answers cut off or empty."""
    rows = []
    for result in run.of_kind("evaluate"):
        written = [task["metrics"] for task in _tasks(result).values() if "length" in task.get("metrics", {})]
        if written:
            cells = [_mean(written, name) for name in ("length", "repetition", "cut_off", "empty", "too_long")]
            rows.append([row_name(run, result), f"{cells[0]:.0f}", *(f"{cell:.1%}" for cell in cells[1:])])
    return Table(("model", "tokens an answer", "repeated", "cut off", "empty", "not asked: too long"), rows)


def speed(run: Run) -> Table:
    """What each model takes up and how fast it is, and beside its teacher in the same run how many times as fast."""
    rows = []
    for result in run.of_kind("evaluate"):
        found = result.json("results.json").get("efficiency", {})
        own, teacher = found.get("model"), found.get("teacher")
        if own is None:
            continue
        timed = [_rate(own, teacher or {}, name) for name in ("prefill", "decode")]
        sizes = [human_bytes(own["bytes"]), human_bytes(own["kv_bytes_per_token"])]
        memory = human_bytes(own["memory_bytes"]) if own.get("memory_bytes") else HOLE
        rows.append([row_name(run, result), human(own["parameters"]), *sizes, *timed, memory])
    return Table(
        ("model", "parameters", "weights", "KV a token", "prefill tokens/s", "decode tokens/s", "memory"), rows
    )


def notes(run: Run) -> list[str]:
    """What a reader must know: holes, what a judge did not grade, and where writing fails while choosing survives."""
    found = []
    for result in run.of_kind("evaluate"):
        name = row_name(run, result)
        for task, facts in _tasks(result).items():
            judge = facts.get("judge") or {}
            if facts.get("hole"):
                found.append(f"{name}: {task} is a hole: {facts['hole']}")
            if judge.get("hole"):
                found.append(f"{name}: {task} has {judge['graded']} of {judge['asked']} grades: {judge['hole']}")
            elif judge.get("malformed") or judge.get("failed"):
                lost = f"{judge['malformed']} verdicts without a grade, {judge['failed']} requests that failed"
                found.append(f"{name}: {task} has {judge['graded']} of {judge['asked']} grades: {lost}")
        found += [f"{name}: {warning}" for warning in result.json("results.json").get("warnings", [])]
    return found


def answers(run: Run) -> list[dict[str, Any]]:
    """The first items of each skill, with what every model said."""
    shown: dict[str, list[tuple[str, str]]] = {}
    for result in run.of_kind("evaluate"):
        for name in sorted(name for name in result.files if name.startswith("answers/")):
            for line in result.lines(name)[:_SHOWN]:
                said = "\n\n".join(line["answers"][0]) or HOLE
                task = name.removeprefix("answers/").removesuffix(".jsonl")
                prompt = f"{task}, {line['id']}: " + "\n\n".join(map(str, line["said"]))
                shown.setdefault(prompt, []).append((row_name(run, result), said))
    return [{"prompt": prompt, "answers": given} for prompt, given in shown.items()]


def _tasks(result: Result) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = result.json("results.json").get("tasks", {})
    return found


def _titled(run: Run, name: str) -> str:
    """A task with the metric that counts, and the unit of one that is neither a share nor a grade."""
    found = (_tasks(result).get(name, {}) for result in run.of_kind("evaluate"))
    task = next((task for task in found if task.get("first")), None)
    if task is None:
        return name
    unit = {"nats": ", nats", "bits": ", bits"}.get(task.get("unit", ""), "")
    less = ", less is better" if task.get("unit") in ("nats", "bits", "perplexity") else ""
    return f"{name} ({task['first']}{unit}{less})"


def _chance(run: Run, name: str) -> str:
    """What guessing gets in a task of multiple choice."""
    found = (_tasks(result).get(name, {}).get("metrics", {}).get("chance") for result in run.of_kind("evaluate"))
    figure = next((figure for figure in found if figure), None)
    return f"{100 * figure['value']:.1f}" if figure else ""


def _figure(task: dict[str, Any] | None) -> dict[str, Any] | None:
    return task.get("metrics", {}).get(task["first"]) if task and task.get("first") else None


def _scale(task: dict[str, Any]) -> tuple[float, int]:
    """What a figure is multiplied by where it is shown, and its decimals: shares are shown in percent."""
    unit = task.get("unit") or ("grade" if str(task["first"]).startswith("judge") else "share")
    return {"share": (100.0, 1), "grade": (1.0, 1), "points": (1.0, 1)}.get(unit, (1.0, 3))


def _score(task: dict[str, Any] | None) -> str:
    figure = _figure(task)
    if figure is None or task is None:
        return HOLE
    scale, digits = _scale(task)
    half = scale * (figure["high"] - figure["low"]) / 2
    return f"{scale * figure['value']:.{digits}f} ± {half:.{digits}f}"


def _difference(task: dict[str, Any] | None) -> str:
    figure = _figure(task)
    if figure is None or task is None or not figure.get("difference"):
        return ""
    scale, digits = _scale(task)
    value, low, high = (scale * figure["difference"][part] for part in ("value", "low", "high"))
    noise = f" {NOISE}" if low <= 0 <= high else ""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{noise}"


def _mean(written: Sequence[dict[str, Any]], name: str) -> float:
    found = [metrics[name]["value"] for metrics in written if name in metrics]
    return sum(found) / len(found) if found else 0.0


def _rate(own: dict[str, float], teacher: dict[str, float], name: str) -> str:
    if not own.get(name):
        return HOLE
    beside = f" ({own[name] / teacher[name]:.2f}×)" if teacher.get(name) else ""
    return f"{own[name]:.4g}{beside}"
