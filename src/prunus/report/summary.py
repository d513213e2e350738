"""The first table of a report: every evaluated model with its distance from the teacher, its scores and its cost."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from prunus.console import duration, human, human_bytes
from prunus.report import tasks
from prunus.report.records import Result, Run
from prunus.report.table import interval, is_student, row_name

_TASKS = 5
"""Columns of tasks, at most; with more of them, the mean stands for all."""
_NOT_MAKING = ("evaluate", "export", "score")
"""Kinds of steps that do not change a model."""

_Column = tuple[str, Sequence[str]]


def summary(run: Run) -> tasks.Table:
    """One row for each evaluated model; the best figure of the students is bold in each column.

    The columns: parameters with their share of the teacher's; KL to the teacher in nats per token; the primary metric
    of each task; the mean of these where all are shares; the time of the steps that made the model; the smallest
    exported file. A column without figures is left out.
    """
    results = run.of_kind("evaluate")
    columns: list[_Column] = [
        ("parameters", [_parameters(run, result) for result in results]),
        ("KL to teacher", _marked(run, [_kl(result) for result in results], 3, less=True)),
        *_scores(run),
        ("mean of tasks", _marked(run, [_mean(run, result) for result in results], 1)),
        ("time", [_time(run, result) for result in results]),
        ("smallest file", [_file(run, result) for result in results]),
    ]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    rows = [[row_name(run, result), *(cells[i] for _, cells in columns)] for i, result in enumerate(results)]
    return tasks.Table(("model", *(title for title, _ in columns)), rows)


def best(run: Run) -> list[tuple[str, str]]:
    """Which student is best, by which measure, as pairs of measure and sentence."""
    students = [result for result in run.of_kind("evaluate") if is_student(run, result)]
    sentences = []
    if near := [(kl, i) for i, result in enumerate(students) if (kl := _kl(result)) is not None]:
        closest = students[min(near)[1]]
        figure = interval(closest.json("results.json")["figures"]["kl"], 3)
        text = f"{_named(run, closest)}, KL {figure} nats per token"
        sentences.append(("Closest to the teacher on held-out text", text))
    if able := [(mean, -i) for i, result in enumerate(students) if (mean := _mean(run, result)) is not None]:
        mean, place = max(able)
        teacher = run.find("teacher", "evaluate")
        whole = None if teacher is None else _mean(run, teacher)
        beside = "" if whole is None else f"; teacher {whole:.1f}"
        sentences.append(("Highest mean of the tasks", f"{_named(run, students[-place])}, {mean:.1f}{beside}"))
    return sentences


def _named(run: Run, result: Result) -> str:
    count, _, share = _parameters(run, result).partition(", ")
    return f"{row_name(run, result)} ({count} parameters{f', {share} of the teacher' if share else ''})"


def _scores(run: Run) -> list[_Column]:
    """A column for each task."""
    names = tasks.evaluated_tasks(run)
    columns: list[_Column] = []
    for name in names if len(names) <= _TASKS else []:
        found = [tasks.tasks_of(result).get(name) for result in run.of_kind("evaluate")]
        scored = [task for task in found if task and tasks.primary(task)]
        digits = tasks.scale_of(scored[0])[1] if scored else 0
        less = any(tasks.less_is_better(task) for task in scored)
        columns.append((name, _marked(run, [tasks.value_of(task) for task in found], digits, less)))
    return columns


def _marked(run: Run, values: Sequence[float | None], digits: int, less: bool = False) -> list[str]:
    """Values as texts, with the best of several students bold."""
    texts = ["" if value is None else f"{value:.{digits}f}" for value in values]
    students = [
        (value, text)
        for result, value, text in zip(run.of_kind("evaluate"), values, texts, strict=True)
        if value is not None and is_student(run, result)
    ]
    if len(students) < 2:
        return texts
    top = (min if less else max)(students)[1]
    return [
        Markup(f"<b>{escape(text)}</b>") if text == top and is_student(run, result) else text
        for result, text in zip(run.of_kind("evaluate"), texts, strict=True)
    ]


def _parameters(run: Run, result: Result) -> str:
    """The number of parameters, and their share of the teacher's."""
    count = result.json("results.json")["parameters"]
    teacher = run.find("teacher", "evaluate")
    whole = 0 if teacher is None else teacher.json("results.json")["parameters"]
    share = f", {count / whole:.0%}" if whole > 0 and result.subject != "teacher" else ""
    return f"{human(count)}{share}"


def _kl(result: Result) -> float | None:
    kl = result.json("results.json")["figures"].get("kl")
    return kl["value"] if kl else None


def _mean(run: Run, result: Result) -> float | None:
    """The mean of the tasks' primary metrics in percent; None where one is missing, or is not a share."""
    found = [tasks.tasks_of(result).get(name) for name in tasks.evaluated_tasks(run)]
    values = [tasks.value_of(task) for task in found if task and tasks.is_share(task)]
    whole = [value for value in values if value is not None]
    return sum(whole) / len(whole) if len(whole) == len(found) > 1 else None


def _time(run: Run, result: Result) -> str:
    """The time of the steps of this model up to its evaluation, those aside that do not change it."""
    before = run.results[: run.results.index(result)]
    subjects = (result.subject, run.maker(result.subject))
    steps = [step for step in before if step.subject in subjects and step.kind not in _NOT_MAKING]
    return duration(sum(step.record["seconds"] for step in steps)) if steps else ""


def _file(run: Run, result: Result) -> str:
    """The smallest exported file of a student, in the row of its last evaluation."""
    own = [other for other in run.results if other.subject == result.subject]
    exports = [other for other in own if other.kind == "export"]
    if not exports or [other for other in own if other.kind == "evaluate"][-1] is not result:
        return ""
    sizes = [(facts["nbytes"], name) for name, facts in exports[-1].json("export.json").items() if name != "proof"]
    return f"{human_bytes(min(sizes)[0])} ({min(sizes)[1]})" if sizes else ""
