"""The `report` step: one HTML page out of a run's records. It reads no weight and needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunus.console import duration, human_bytes
from prunus.report import shapes, tasks
from prunus.report.charts import Series, bar_chart, heat_map, interval_chart, line_chart
from prunus.report.records import Result, Run, load_run
from prunus.report.table import HEADER, comparison, row_name
from prunus.yaml12 import dump_yaml

LOSSES = {
    "forward_kl": "KL to the teacher",
    "reverse_kl": "reverse KL to the teacher",
    "jensen_shannon": "Jensen-Shannon divergence to the teacher",
    "total_variation": "total variation to the teacher",
    "mse": "squared error of the logits",
    "cosine": "cosine distance of the logits",
    "cross_entropy": "cross-entropy",
    "sft": "cross-entropy of what the assistant says",
    "distil": "divergence from the teacher where the assistant speaks",
}
UNITLESS = ("total_variation", "mse", "cosine")


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
    html = page.get_template("page.html.j2").render(
        name=run.name,
        missing=run.missing,
        header=HEADER,
        rows=comparison(run),
        figures=[*_quality(run), *_curves(run), *_search(run), *_evolutions(run), *_importance(run)],
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
    out.write_text(html, encoding="utf-8")
    return out


def _tables(run: Run) -> list[tuple[str, str, tasks.Table]]:
    """The tables of tasks that have anything in them: title, note, table."""
    level = f"{run.recipe['evaluate']['confidence']:.0%}"
    search = shapes.found_in(run)
    found = [
        ("Tasks", f"Scores, grades apart in percent; ± half of the {level} interval; {tasks.HOLE} is a hole.",
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
    note = "Nats per token on held-out text, with the confidence interval. 0 is the teacher itself."
    return (
        [Figure("KL to the teacher", note, Markup(interval_chart(rows, "KL(teacher ‖ model), nats per token")))]
        if rows
        else []
    )


def _curves(run: Run) -> list[Figure]:
    """One plot for each loss, since values of different losses cannot be compared."""
    by_loss: dict[str, list[Series]] = {}
    for result in [*run.of_kind("correct"), *run.of_kind("distill"), *run.of_kind("align")]:
        config = result.record["config"]
        loss = str(config.get("method", config.get("loss", "cross_entropy")))
        points = [(line["tokens"], line["loss"]) for line in result.lines("metrics.jsonl")]
        name = result.subject
        if result.label not in ("correct", "distill"):
            name = f"{name} {result.label.removeprefix('align-')}"
        by_loss.setdefault(loss, []).append(Series(name, points))
    note = "Training loss by tokens seen, each point the mean since the one before."
    return [
        Figure(
            f"Loss curves: {LOSSES.get(loss, loss)}",
            note,
            Markup(line_chart(series, "tokens", "loss" if loss in UNITLESS else "nats per token", log_y=True)),
        )
        for loss, series in by_loss.items()
    ]


def _search(run: Run) -> list[Figure]:
    found = shapes.found_in(run)
    return [] if found is None else [Figure(title, note, Markup(svg)) for title, note, svg in shapes.charts(found)]


def _evolutions(run: Run) -> list[Figure]:
    """Of each evolved merge its fitness, trial by trial, beside what each parent is worth."""
    figures = []
    for result in run.of_kind("merge"):
        if not result.record["config"]["evolve"]["trials"]:
            continue
        lines = [line for line in result.lines("journal.jsonl") if not line["part"]]
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
        chart = line_chart(series, "trial", "fitness")
        figures.append(Figure(f"Evolution of {result.subject}", note, Markup(chart)))
    return figures


def _importance(run: Run) -> list[Figure]:
    result = next(iter(run.of_kind("score")), None)
    if result is None:
        return []
    scores = result.json("scores.json")
    influence = scores["layers"]["block_influence"]
    neurons = [Series(f"layer {i}", list(enumerate(row))) for i, row in enumerate(scores["neurons"])]
    return [
        Figure(
            "Layers",
            "Block influence, 1 - cos(input, output): how much a layer turns the residual stream.",
            Markup(bar_chart(influence, [str(i) for i in range(len(influence))], "block influence")),
        ),
        Figure(
            "Hidden channels",
            "Importance summed over all norms, in falling order.",
            Markup(
                line_chart([Series("channels", list(enumerate(scores["channels"])))], "rank", "importance", log_y=True)
            ),
        ),
        Figure(
            "MLP neurons",
            "Importance of each layer's neurons, in falling order.",
            Markup(line_chart(neurons, "rank", "importance", log_y=True)),
        ),
        Figure(
            "Attention heads",
            "Importance, each layer shaded by itself.",
            Markup(heat_map(scores["heads"], "head", "layer")),
        ),
    ]


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
        "memory": human_bytes(record["peak_memory_bytes"].get("gpu", record["peak_memory_bytes"]["process"])),
        "disk": human_bytes(sum(file["bytes"] for file in record["files"].values())),
    }
