"""The `report` step: one HTML page out of a run's records. It reads no weight and needs no network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunus.console import duration, human_bytes, printable
from prunus.files import replace_text
from prunus.report import shapes, tasks
from prunus.report.charts import Series, interval_chart, line_chart
from prunus.report.curves import curves
from prunus.report.importance import importance
from prunus.report.records import Result, Run, load_run
from prunus.report.table import HEADER, comparison, row_name
from prunus.yaml12 import dump_yaml

_LONGEST = 10_000  # characters of an answer on the page; the whole of it is in the records


@dataclass(frozen=True)
class Figure:
    """A chart and what it shows."""

    title: str
    note: str
    svg: Markup


def write_report(root: Path, out: Path) -> Path:
    """Write the report of the run in `root` to the file `out`.

    Raises:
        ArtifactError: `root` holds no run, or a record is damaged.
    """
    run = load_run(root)
    page = Environment(
        loader=PackageLoader("prunus.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters["shortened"] = _shortened
    html = page.get_template("page.html.j2").render(
        name=run.name,
        missing=run.missing,
        damaged=run.damaged,
        failures=run.failures,
        header=HEADER,
        rows=comparison(run),
        figures=[*_quality(run), *_made(curves(run)), *_made(_search(run)), *_evolutions(run), *_made(importance(run))],
        answers=[*_answers(run), *tasks.answers(run)],
        tables=_tables(run),
        notes=tasks.notes(run),
        steps=[_step(result) for result in run.results],
        recipe=dump_yaml(run.recipe),
        versions=run.results[-1].record["versions"] if run.results else {},
        hardware=sorted({result.record["hardware"] for result in run.results}),
        confidence=run.recipe["evaluate"]["confidence"],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, printable(html))
    return out


def _shortened(text: str) -> str:
    """The beginning of a text that is too long for a page."""
    return (
        text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... (the first {_LONGEST:,} of {len(text):,} characters)"
    )


def _made(charts: Iterable[tuple[str, str, str]]) -> list[Figure]:
    return [Figure(title, note, Markup(svg)) for title, note, svg in charts]


def _tables(run: Run) -> list[tuple[str, str, tasks.Table]]:
    """The tables of tasks that have anything in them: title, note, table."""
    level = f"{run.recipe['evaluate']['confidence']:.0%}"
    search = shapes.found_in(run)
    found = [
        ("Tasks", f"Shares in percent; grades, from 1 to 10, perplexities, nats and bits as they are; ± half of the "
         f"{level} interval; {tasks.HOLE}: no score.",
         tasks.scores(run)),
        ("Tasks, beside the teacher", f"Paired differences on the same items with their {level} intervals, by the "
         f"bootstrap over items. {tasks.NOISE} marks those that may be noise.", tasks.differences(run)),
        ("Writing", "Over all tasks answered in words. Pruning hides here: choosing among answers survives it longer.",
         tasks.health(run)),
        ("Speed", "One sequence on this machine; × is the ratio to the teacher, measured by turns in one run.",
         tasks.speed(run)),
    ]  # fmt: skip
    if search is not None:
        found.append(("Search: candidates", "Losses on the ranking text, which no evaluation reads; those that came "
                      "furthest first.", shapes.candidates(search)))  # fmt: skip
    found[2:2] = [(f"{name}, by its parts", "Scores as above.", table) for name, table in tasks.parts(run)]
    return [(title, note, table) for title, note, table in found if len(table.header) > 1 and table.rows]


def _quality(run: Run) -> list[Figure]:
    rows = []
    for result in run.of_kind("evaluate"):
        kl = result.json("results.json")["figures"].get("kl")
        if kl:
            rows.append((row_name(run, result), kl["value"], kl["low"], kl["high"]))
    note = "On held-out text, with the confidence interval. 0 is the teacher itself."
    return (
        [Figure("KL to the teacher", note, Markup(interval_chart(rows, "KL(teacher ‖ model), nats per token")))]
        if rows
        else []
    )


def _search(run: Run) -> list[tuple[str, str, str]]:
    found = shapes.found_in(run)
    return [] if found is None else shapes.charts(found)


def _evolutions(run: Run) -> list[Figure]:
    """Of each evolved merge its fitness, trial by trial, beside what each parent is worth."""
    figures = []
    for result in run.of_kind("merge"):
        if not result.record["config"]["evolve"]["trials"]:
            continue
        lines = [line for line in result.lines("journal.jsonl") if not line["part"]]
        if not lines:
            continue
        tried = [(line["number"], line["fitness"]) for line in lines]
        best = [(number, max(fitness for _, fitness in tried[: i + 1])) for i, (number, _) in enumerate(tried)]
        ends = (0, max(tried[-1][0], 1))
        series = [Series("each trial", tried), Series("the best so far", best)]
        for number, parent in enumerate(result.json("parents.json")):
            worth = sum(parent["0"].values()) / len(parent["0"])
            series.append(Series(f"model {number} by itself", [(end, worth) for end in ends]))
        chosen = result.record["metrics"]
        note = (
            "Mean reward over tasks, on conversations that the evaluation does not ask. Chosen on further ones: trial "
            f"{chosen['chosen_trial']:.0f}, {chosen['fitness']:.3f} on all; the start {chosen['fitness_start']:.3f}."
        )
        if result.record["config"]["evolve"]["i_am_tuning_on_the_test_set"]:
            note += " It was allowed to tune on the test set: scores on that say nothing of other data."
        chart = line_chart(series, "trial", "fitness: mean reward, 0 to 1")
        figures.append(Figure(f"Evolution of {result.subject}", note, Markup(chart)))
    return figures


def _answers(run: Run) -> list[dict[str, Any]]:
    """For each prompt what every evaluated model answered, in the order of the table."""
    prompts: dict[str, list[tuple[str, str]]] = {}
    for result in run.of_kind("evaluate"):
        for line in result.lines("answers.jsonl"):
            prompts.setdefault(line["prompt"], []).append((row_name(run, result), line["answer"]))
    return [{"prompt": prompt, "answers": answers} for prompt, answers in prompts.items()]


def _step(result: Result) -> dict[str, str]:
    record = result.record
    return {
        "name": f"{result.subject} {result.label}",
        "folder": f"{result.subject}/{result.folder.name}",
        "time": duration(record["seconds"]),
        "memory": human_bytes(record["peak_memory_bytes"].get("gpu") or record["peak_memory_bytes"]["process"]),
        "disk": human_bytes(sum(file["bytes"] for file in record["files"].values())),
    }
