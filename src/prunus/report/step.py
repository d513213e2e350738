"""The `report` step: one HTML page from a run's records. It reads no weights and needs no network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from prunus.console import duration, human_bytes, printable
from prunus.files import replace_text
from prunus.report import shapes, tasks
from prunus.report.charts import Series, interval_chart, line_chart
from prunus.report.curves import curves
from prunus.report.importance import importance
from prunus.report.records import Result, Run, load_run
from prunus.report.summary import best, summary
from prunus.report.table import HEADER, comparison, row_name
from prunus.report.validation import validation_curves
from prunus.yaml12 import dump_yaml

_LONGEST = 10_000  # characters of an answer on the page; the records have all of it


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
    page.filters |= {"shortened": _shortened, "breakable": _breakable}
    html = page.get_template("page.html.j2").render(
        name=run.name,
        missing=run.missing,
        damaged=run.damaged,
        failures=run.failures,
        best=best(run),
        summary=summary(run),
        figures=[
            *_quality(run),
            *_made(curves(run)),
            *_made(validation_curves(run)),
            *_made(_search(run)),
            *_evolutions(run),
            *_made(importance(run)),
        ],
        answers=[*_answers(run), *tasks.answers(run)],
        tables=_tables(run),
        notes=tasks.notes(run),
        steps=[_step(result) for result in run.results],
        recipe=dump_yaml(run.recipe),
        versions=run.results[-1].record["versions"] if run.results else {},
        hardware=sorted({result.record["hardware"] for result in run.results}),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, printable(html))
    return out


def _shortened(text: str) -> str:
    """A text, or its beginning where it is too long for a page."""
    return (
        text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... (the first {_LONGEST:,} of {len(text):,} characters)"
    )


def _breakable(title: str) -> Markup:
    """A column's title that may be broken after underscores."""
    return Markup(escape(title).replace("_", Markup("_<wbr>")))


def _made(charts: Iterable[tuple[str, str, str]]) -> list[Figure]:
    return [Figure(title, note, Markup(svg)) for title, note, svg in charts]


def _tables(run: Run) -> list[tuple[str, str, tasks.Table]]:
    """The tables that have rows: title, note, table."""
    level = f"{100 * run.recipe['evaluate']['confidence']:g} %"
    search = shapes.found_in(run)
    tables = [
        ("On held-out text", f"± is half of the {level} bootstrap interval over windows of text. NLL and KL are in "
         "nats per token. Increase is the paired difference to the teacher on the same windows. Top-1 is the share of "
         "tokens for which the model and its teacher predict the same token; Draft the share of its tokens that the "
         "teacher would accept in speculative sampling, 1 - total variation. Tokens counts the text that the model was "
         "trained on in this run, without conversations of alignment.",
         tasks.Table(HEADER, comparison(run))),
        ("Tasks", f"Shares are in percent, grades from 1 to 10; other metrics are unchanged. ± is half of the {level} "
         f"interval. {tasks.MISSING} marks a missing score.", tasks.scores(run)),
        *((f"{name}: its parts", "The same metric for each part.", table) for name, table in tasks.parts(run)),
        ("Tasks: difference to the teacher", f"Paired differences on the same items with their {level} bootstrap "
         f"intervals. {tasks.NOISE} marks a difference that may be noise: its interval contains 0.",
         tasks.differences(run)),
        ("Written answers", "Means over all tasks with written answers. Pruning damages these sooner than the choice "
         "among given answers.", tasks.health(run)),
        ("Speed", f"Measured on {tasks.timed_on(run)}, one sequence at a time; × is the ratio to the teacher, measured "
         "alternately in the same run.", tasks.speed(run)),
        ("Size", "Weights as loaded for the evaluation; KV cache in the same number format.", tasks.sizes(run)),
    ]  # fmt: skip
    if search is not None:
        tables.append(("Search: candidates", "Losses on the ranking text, which no evaluation reads. Candidates that "
                       "reached the last rung come first.", shapes.candidates(search)))  # fmt: skip
    return [(title, note, table) for title, note, table in tables if len(table.header) > 1 and table.rows]


def _quality(run: Run) -> list[Figure]:
    rows = []
    for result in run.of_kind("evaluate"):
        kl = result.json("results.json")["figures"].get("kl")
        if kl:
            rows.append((row_name(run, result), kl["value"], kl["low"], kl["high"]))
    note = "On held-out text, in the order of the table, with the confidence interval. The teacher is at 0."
    return (
        [Figure("KL to the teacher", note, Markup(interval_chart(rows, "KL(teacher ‖ model), nats per token")))]
        if rows
        else []
    )


def _search(run: Run) -> list[tuple[str, str, str]]:
    found = shapes.found_in(run)
    return [] if found is None else shapes.charts(found)


def _evolutions(run: Run) -> list[Figure]:
    """For each evolved merge the fitness of its trials, and that of each parent."""
    figures = []
    for result in run.of_kind("merge"):
        if not result.record["config"]["evolve"]["trials"]:
            continue
        lines = [line for line in result.lines("journal.jsonl") if not line["part"]]
        if not lines:
            continue
        tried = [(line["number"], line["fitness"]) for line in lines]
        leading = [(number, max(fitness for _, fitness in tried[: i + 1])) for i, (number, _) in enumerate(tried)]
        ends = (0, max(tried[-1][0], 1))
        series = [Series("each trial", tried), Series("best so far", leading)]
        for number, parent in enumerate(result.json("parents.json")):
            worth = sum(parent["0"].values()) / len(parent["0"])
            series.append(Series(f"model {number} alone", [(end, worth) for end in ends]))
        chosen = result.record["metrics"]
        note = (
            "Mean reward over tasks, on conversations that no evaluation uses. The best trials are compared on more "
            f"of them: trial {chosen['chosen_trial']:.0f} was chosen, with a fitness of {chosen['fitness']:.3f} on "
            f"all; the start has {chosen['fitness_start']:.3f}."
        )
        if result.record["config"]["evolve"]["i_am_tuning_on_the_test_set"]:
            note += " This merge was tuned on the test set, by option: its scores there do not hold for other data."
        chart = line_chart(series, "trial", "fitness: mean reward, 0 to 1")
        figures.append(Figure(f"Evolution of {result.subject}", note, Markup(chart)))
    return figures


def _answers(run: Run) -> list[dict[str, Any]]:
    """For each prompt every evaluated model's answer, in the order of the table."""
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
