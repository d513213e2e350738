"""Output of the commands: tables of a plan, results, speeds and a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from prunus.console import Console, duration, human, human_bytes
from prunus.costs import Cost
from prunus.data.preview import Preview
from prunus.graph.steps import Step
from prunus.models.shape import Shape
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.fitting import Fit
from prunus.pipeline.machine import busy, on_gpu
from prunus.pipeline.pace import seconds_of
from prunus.pipeline.planned import Plan
from prunus.report import tasks
from prunus.report.records import load_run
from prunus.report.shapes import candidates, movement
from prunus.report.table import HEADER, comparison
from prunus.steps.evaluate.cost import task_costs
from prunus.steps.export.plan import block_warning
from prunus.tools.publish.hub import Upload
from prunus.training.config import TrainingConfig

SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "MLP": "intermediate_size",
    "heads": "num_attention_heads",
    "KV": "num_key_value_heads",
    "head dim": "head_dim",
    "vocabulary": "vocab_size",
}
"""Columns of the table of shapes -> the size that each shows."""


def show_training(steps: Sequence[Step], console: Console) -> None:
    """Print batch sizes, learning rates and warm-ups of the training steps, whether given or defaults."""
    trained = [(step.name, step.config) for step in steps if isinstance(step.config, TrainingConfig)]
    rows = [
        [name, str(c.steps), f"{c.batch_size} x {c.sequence_length}", f"{c.learning_rate:g}", str(c.resolved_warmup)]
        for name, c in trained
    ]
    if rows:
        console.table("Training", ["step", "steps", "sequences x tokens", "learning rate", "warm-up steps"], rows)


def show_plan(plan: Plan, console: Console) -> None:
    """Print the steps of a plan with their state and cost, and the shapes."""
    rows = []
    places = [step.artifact.path for step in plan.steps]
    again = [place in places[:number] for number, place in enumerate(places)]  # shared with an earlier step
    costs = [Cost() if repeated else cost_of(step, plan) for step, repeated in zip(plan.steps, again, strict=True)]
    times = seconds_of(plan, costs)
    for number, (step, cost, seconds) in enumerate(zip(plan.steps, costs, times, strict=True), start=1):
        figures = [human(cost.tokens), human(cost.flops), human_bytes(cost.memory_bytes), human_bytes(cost.disk_bytes)]
        shown = [figure if value else "" for figure, value in zip(figures, vars(cost).values(), strict=True)]
        state = "shared" if again[number - 1] else step.state()
        time = duration(seconds) if seconds else ""
        rows.append([f"{number:2d} {step.name}", state, time, *shown, step.artifact.path.name])
    console.table("Steps", ["step", "state", "time", "tokens", "FLOPs", "memory", "disk", "folder"], rows)
    show_training([step for step, repeated in zip(plan.steps, again, strict=True) if not repeated], console)
    _show_tasks(plan, console)
    shapes = {"teacher": plan.teacher, **plan.students}
    console.table(
        "Shapes",
        ["model", *SIZES, "parameters", "non-embedding", "of teacher"],
        [_shape_row(name, shape, plan.teacher) for name, shape in shapes.items()],
    )
    _warn_of_shapes(plan, console)
    for name in plan.waiting:
        console.say(f"students.{name}: the search decides its shape; its steps are planned after the search")
    for preview in plan.previews:
        show_preview(preview, console)
    for text in plan.missing:
        console.warn(f"not checked: {text}")
    todo = {
        step.name: cost
        for step, cost, repeated in zip(plan.steps, costs, again, strict=True)
        if not repeated and not step.artifact.is_done()
    }
    _show_total(plan, todo, len(set(places)), times, console)


def show_fits(fits: Sequence[Fit], limit: float, console: Console) -> None:
    """Print what each student's distillation needs with which options, and the first options that fit."""
    rows = [
        [
            f"{fit.student}: {fit.changes or 'as in the recipe'}",
            human_bytes(fit.memory),
            "fits" if fit.memory <= limit else "",
        ]
        for fit in fits
    ]
    console.table(
        f"Distillation in {human_bytes(limit)} of memory, products in 16 bits", ["student: options", "memory", ""], rows
    )
    for student in dict.fromkeys(fit.student for fit in fits):
        first = next((fit for fit in fits if fit.student == student and fit.memory <= limit), None)
        if first is None:
            console.warn(f"students.{student}: none of these fits in {human_bytes(limit)}")
        elif first.changes:
            console.say(f"students.{student} fits with: {first.flags}")
        else:
            console.say(f"students.{student} fits as in the recipe")


def _warn_of_shapes(plan: Plan, console: Console) -> None:
    """Warn of sizes that formats or kernels handle badly, and of files that a student is not trained for."""
    affected: dict[str, list[str]] = {}
    for name, shape in plan.students.items():
        for note in (block_warning(plan.recipe.export, shape), shape.odd_experts()):
            if note:
                affected.setdefault(note, []).append(name)
    formats = plan.recipe.export.formats
    for name in plan.students:
        form = plan.recipe.students[name].distill.quantise
        others = [other for other in formats if other != form]
        if form is not None and others:
            note = f"distill.quantise: {form} trains for that file; the export also writes {', '.join(others)}"
            affected.setdefault(note, []).append(name)
    for note, names in affected.items():
        console.warn(f"students.{', '.join(names)}: {note}")


def _show_tasks(plan: Plan, console: Console) -> None:
    """Print the items and tokens of the tasks of the evaluation."""
    rows = [
        [
            name,
            human(cost.items) if cost.items is not None else "by the harness",
            human(cost.tokens) if cost.items is not None else "",
        ]
        for name, cost in task_costs(plan.recipe.evaluate).items()
    ]
    if rows:
        console.table("Tasks, of each model", ["task", "items", "tokens at most"], rows)


def _show_total(
    plan: Plan, todo: Mapping[str, Cost], steps: int, times: Sequence[float | None], console: Console
) -> None:
    """Print the cost of the steps to do, of `steps` in all, and warn of those that need more memory than there is."""
    flops, memory = sum(cost.flops for cost in todo.values()), max((c.memory_bytes for c in todo.values()), default=0)
    disk = sum(cost.disk_bytes for cost in todo.values())
    if memory > (here := psutil.virtual_memory().total) and not on_gpu(plan.recipe.runtime):
        large = ", ".join(name for name, cost in todo.items() if cost.memory_bytes > here)
        console.warn(
            f"more memory than the {human_bytes(here)} of this machine: {large}; "
            "training and evaluation need less with a smaller runtime.device_batch_size or sequence_length"
        )
    if todo and (note := busy()):
        console.warn(note)
    console.say(
        f"to do: {len(todo)} of {steps} steps, {_time(times)}{human(flops)} FLOPs, at most "
        f"{human_bytes(memory)} of memory (without libraries), {human_bytes(disk)} of disk; "
        f"results are written to {plan.root}"
    )


def _time(times: Sequence[float | None]) -> str:
    """The total time of the steps whose time is known."""
    known = sum(seconds for seconds in times if seconds)
    return f"about {duration(known)} on this machine for steps of known time, " if known else ""


def show_preview(preview: Preview, console: Console) -> None:
    """Print a row of chat data as the model reads it, with the trained part marked, and the unused columns."""
    if preview.text is not None:
        console.heading(preview.source, "row 1 as the model reads it; marked: trained on")
        console.marked(preview.pieces())
    if preview.ends is False:
        console.warn(f"{preview.source}: no answer in row 1 ends with an end token (eos_token_id)")
    if preview.unread:
        console.say(f"{preview.source}: unused columns: {', '.join(preview.unread)}")


def show_upload(upload: Upload, console: Console) -> None:
    """Print which files would be uploaded, and which not."""
    uploaded, skipped = upload.choice.uploaded, upload.choice.skipped
    rows = [[str(file.path.relative_to(upload.folder)), human_bytes(file.size)] for file in uploaded]
    console.table(f"{upload.folder} -> {upload.repository}", ["file", "size"], rows)
    if skipped:
        console.say(f"not uploaded: {', '.join(str(file.relative_to(upload.folder)) for file in skipped)}")
    console.say(f"{len(uploaded)} files, {human_bytes(upload.nbytes)}")


def _rate(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4g} ({figure['low']:.4g}–{figure['high']:.4g})"


def _ratio(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f}x ({figure['low']:.2f}–{figure['high']:.2f})"


def show_draft(found: dict[str, Any], console: Console) -> None:
    """Print what a draft model gains, for each draft length."""
    console.say(
        f"accepted on {human(found['text_tokens'])} tokens of text: {found['acceptance']:.1%} of what the draft "
        f"samples (1 - total variation), {found['agreement']:.1%} of its greedy tokens"
    )
    expected = {row["length"]: row for row in found["expected"]}
    rows = [[f"{name} alone", _rate(found[name]), *[""] * 5] for name in ("model", "draft")]
    for row in found["lengths"]:
        theory = expected[row["length"]]
        rows.append([
            f"with {row['length']} drafted", _rate(row["tokens_per_second"]), _ratio(row["ratio"]),
            f"{row['tokens_per_step']:.2f}", f"{theory['tokens_per_step']:.2f}", f"{theory['ratio']:.2f}x",
            f"{row['identical']:.0%}",
        ])  # fmt: skip
    console.table(
        "greedy decoding: median (min–max over rounds)",
        ["", "tokens/s", "to model alone", "tokens/step", "expected", "expected", "same text"],
        rows,
    )
    console.say(
        f"best draft length: {found['best']} of those measured; {found['expected_best']} expected from the greedy "
        "tokens accepted and the two speeds"
    )


def show_speeds(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the speeds of models, each with its range over rounds, and ratios to the first model."""
    console.table(
        "tokens per second: median (min–max over rounds)",
        ["model", "size", "memory", "prefill", "to first", "decode", "to first"],
        [
            [
                row["name"],
                human_bytes(row["nbytes"]),
                human_bytes(row["peak_bytes"]) if row["peak_bytes"] else "?",
                _rate(row["prefill"]),
                _ratio(row["prefill_ratio"]),
                _rate(row["decode"]),
                _ratio(row["decode_ratio"]),
            ]
            for row in rows
        ],
    )


def show_results(root: Path, console: Console) -> None:
    """Print the final tables of a run: teacher, students and baselines."""
    run = load_run(root)
    if run.missing:
        console.warn(f"this run is not finished; steps to do: {', '.join(run.missing)}")
    for step, message in run.failures:
        console.warn(f"{step} failed: {message}")
    for text in run.damaged:
        console.warn(f"left out, because its records are damaged: {text}")
    console.table(f"{run.name}: on held-out text", HEADER, comparison(run))
    if tasks.evaluated_tasks(run):
        for title, table in (("scores", tasks.scores(run)), ("differences from the teacher", tasks.differences(run))):
            console.table(f"{run.name}: {title}", table.header, table.rows)
    for note in tasks.notes(run):
        console.warn(note)


def show_search(record: dict[str, Any], console: Console) -> None:
    """Print a search's candidates, ranked by the last rung that each reached, and how to cut the best one."""
    table = candidates(record)
    console.table("Candidates", table.header, table.rows)
    best = record["best"]
    console.say(f"best: {best['name']}, {record['measure']} {best['loss']:.4g}; {movement(record)}")
    cut = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in best["prune"].items()}
    sizes = " ".join(f"--{size.replace('_', '-')} {value}" for size, value in cut.items())
    way = f" via {best['via']}" if best["via"] else ""
    console.say(f"to cut it{way}: prunus prune TEACHER {sizes}")


def _shape_row(name: str, shape: Shape, teacher: Shape) -> list[str]:
    share = shape.non_embedding_parameters / teacher.non_embedding_parameters
    counts = [f"{shape.parameters:,}", f"{shape.non_embedding_parameters:,}", f"{share:.1%}"]
    return [name, *(str(getattr(shape, size)) for size in SIZES.values()), *counts]
