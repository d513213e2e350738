"""Curves of what was measured during training: held-out text, and what the student generates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prunus.report.charts import Series, line_chart
from prunus.report.records import Result, Run

FILE = "validation.jsonl"
_TEXT = {
    "kl": ("KL(teacher ‖ student) on held-out text", "nats per token"),
    "repetition": (
        "Repetition in greedy continuations of held-out text",
        "share of 4-grams that repeat",
    ),
}
_NOTE = "Measured during training; the teacher's value is constant."

Points = list[tuple[float, float]]


def validation_curves(run: Run) -> list[tuple[str, str, str]]:
    """Title, note and chart of each figure, for all students in one chart."""
    charts: dict[tuple[str, str], list[Series]] = {}
    for result in run.of_kind("distill"):
        for key, name, points in _of(result):
            phase = " for its quantised file" if result.label == "qat" else ""
            charts.setdefault(key, []).append(Series(f"{result.subject}{phase}{name}", points))
    for result in run.of_kind("distill")[:1]:
        for key, series in charts.items():
            end = max(x for one in series for x, _ in one.points)
            for other, name, points in _of(result, "teacher"):
                if other == key:
                    series.append(Series(f"teacher{name}", [(0.0, points[0][1]), (end, points[0][1])]))
    return [
        (title, _NOTE, line_chart(series, "tokens", unit, log_y=title == _TEXT["kl"][0]))
        for (title, unit), series in charts.items()
    ]


def _of(result: Result, model: str = "student") -> Iterator[tuple[tuple[str, str], str, Points]]:
    """The curves of one model in a training: chart (title and unit), name of the line after the model's, points."""
    lines: list[dict[str, Any]] = [line for line in result.files.get(FILE, ()) if line["model"] == model]
    for figure, chart in _TEXT.items():
        points = [(line["tokens"], line[figure]) for line in lines if figure in line]
        if points:
            yield chart, "", points
    for task in lines[0].get("tasks", {}) if lines else ():
        for score in lines[0]["tasks"][task]:
            if score == "reward":  # its scale is the skill's own
                continue
            points = [(line["tokens"], line["tasks"][task][score]) for line in lines]
            yield (f"{task} during training", "share of right answers"), f": {score}", points
