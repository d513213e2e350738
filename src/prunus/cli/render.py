"""What the commands print: a model's inspection, a plan, the closing table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunus.console import Console, duration, human, human_bytes
from prunus.costs import Cost
from prunus.data.preview import Preview
from prunus.graph.steps import Step
from prunus.models.checkpoint import DTYPES, ITEM_BYTES
from prunus.models.folder import ModelFolder
from prunus.models.settings import dtype_name
from prunus.models.shape import Shape
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.pace import seconds_of
from prunus.pipeline.planned import Plan
from prunus.report import tasks
from prunus.report.records import load_run
from prunus.report.shapes import candidates, movement
from prunus.report.table import HEADER, comparison
from prunus.steps.evaluate.cost import task_costs
from prunus.steps.export.plan import unfitting
from prunus.tools.publish.hub import Upload
from prunus.training.config import TrainingConfig

_CONTEXT = 4096
SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "MLP": "intermediate_size",
    "heads": "num_attention_heads",
    "KV": "num_key_value_heads",
    "head dim": "head_dim",
    "vocabulary": "vocab_size",
}
"""The columns of the table of shapes, and the size that each shows."""


def show_inspection(folder: ModelFolder, context: int | None, as_json: bool, console: Console) -> None:
    """Print what config and headers say of a model.

    Raises:
        ModelError: The config or a header cannot be read.
    """
    shape = folder.shape
    context = context or min(_CONTEXT, folder.context)
    has_weights = folder.has_weights
    if has_weights:
        folder.check()
    dtype = folder.dtype if has_weights else DTYPES[dtype_name(folder.config) or "float32"]
    width = ITEM_BYTES[dtype]
    facts = {
        "family": shape.family.name,
        **shape.dimensions(),
        "tie_word_embeddings": shape.flags["tie_word_embeddings"],
        "parameters": shape.parameters,
        "embedding_parameters": shape.embedding_parameters,
        "non_embedding_parameters": shape.non_embedding_parameters,
        "dtype": dtype,
        "weights": "headers checked" if has_weights else "none here; sizes are by the config",
        "bytes": folder.nbytes if has_weights else shape.parameters * width,
        "kv_cache_bytes_per_token": shape.kv_cache_bytes(width),
        "context": context,
        "flops_per_token": shape.flops_per_token(context),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console.table(str(folder.path), ["", ""], [[key.replace("_", " "), _fact(value)] for key, value in facts.items()])


def show_training(steps: Sequence[Step], console: Console) -> None:
    """Print how much at a time the training steps take, and how fast, whether given or following from the models."""
    trained = [(step.name, step.config) for step in steps if isinstance(step.config, TrainingConfig)]
    rows = [
        [name, str(c.steps), f"{c.batch_size} x {c.sequence_length}", f"{c.learning_rate:g}", str(c.resolved_warmup)]
        for name, c in trained
    ]
    if rows:
        console.table("Training", ["step", "steps", "sequences x tokens", "learning rate", "warm-up steps"], rows)


def show_plan(plan: Plan, console: Console) -> None:
    """Print the steps of a plan with what is done and what the rest will cost, and the shapes."""
    rows = []
    places = [step.artifact.path for step in plan.steps]
    again = [place in places[:number] for number, place in enumerate(places)]  # another student's step makes it
    costs = [Cost() if repeated else cost_of(step, plan) for step, repeated in zip(plan.steps, again, strict=True)]
    times = seconds_of(plan, costs)
    for number, (step, cost, seconds) in enumerate(zip(plan.steps, costs, times, strict=True), start=1):
        figures = [human(cost.tokens), human(cost.flops), human_bytes(cost.memory_bytes), human_bytes(cost.disk_bytes)]
        shown = [figure if value else "" for figure, value in zip(figures, vars(cost).values(), strict=True)]
        state = "shared" if again[number - 1] else step.state()
        time = duration(seconds) if seconds else ""
        rows.append([f"{number:2d} {step.name}", state, time, *shown, step.artifact.path.name])
    console.table("Steps", ["step", "state", "time", "tokens", "FLOPs", "memory", "disk", "folder"], rows)
    show_training(plan.steps, console)
    asked = task_costs(plan.recipe.evaluate)
    if asked:
        lines = [
            [
                name,
                human(cost.items) if cost.items is not None else "by the harness",
                human(cost.tokens) if cost.items is not None else "",
            ]
            for name, cost in asked.items()
        ]
        console.table("Tasks, of each model", ["task", "items", "tokens at most"], lines)
    shapes = {"teacher": plan.teacher, **plan.students}
    console.table(
        "Shapes",
        ["model", *SIZES, "parameters", "non-embedding", "of teacher"],
        [_shape_row(name, shape, plan.teacher) for name, shape in shapes.items()],
    )
    for name, shape in plan.students.items():
        if note := unfitting(plan.recipe.export, name, shape):
            console.warn(note)
        if note := shape.odd_experts():
            console.warn(f"students.{name}: {note}")
    for name in plan.waiting:
        console.say(f"students.{name}: its shape is decided by the search; its steps are planned when that has run")
    for seen in plan.previews:
        show_preview(seen, console)
    for text in plan.missing:
        console.warn(f"not checked: {text}")
    todo = [
        cost
        for step, cost, repeated in zip(plan.steps, costs, again, strict=True)
        if not repeated and not step.artifact.is_done()
    ]
    flops, memory = sum(cost.flops for cost in todo), max((cost.memory_bytes for cost in todo), default=0)
    disk = sum(cost.disk_bytes for cost in todo)
    console.say(
        f"to do: {len(todo)} of {len(set(places))} steps, {_time(times)}{human(flops)} FLOPs, at most "
        f"{human_bytes(memory)} of memory besides the libraries, {human_bytes(disk)} of disk; results go to {plan.root}"
    )


def _time(times: Sequence[float | None]) -> str:
    """What all steps take whose time is known."""
    known = sum(seconds for seconds in times if seconds)
    return f"about {duration(known)} on this machine where it is known, " if known else ""


def show_preview(seen: Preview, console: Console) -> None:
    """Print a row of chat data as the model reads it, what of it is learnt, and the columns that nothing reads."""
    if seen.text is not None:
        console.heading(seen.source, "row 1 as the model reads it; what is marked is learnt")
        console.marked(seen.pieces())
    if seen.ends is False:
        console.warn(f"{seen.source}: no answer of row 1 ends with a token that ends an answer (eos_token_id)")
    if seen.unread:
        console.say(f"{seen.source}: nothing reads the columns {', '.join(seen.unread)}")


def show_upload(upload: Upload, console: Console) -> None:
    """Print the files to upload, and those left out."""
    uploaded, skipped = upload.choice.uploaded, upload.choice.skipped
    rows = [[str(file.path.relative_to(upload.folder)), human_bytes(file.size)] for file in uploaded]
    console.table(f"{upload.folder} -> {upload.repository}", ["file", "size"], rows)
    if skipped:
        console.say(f"not uploaded: {', '.join(str(file.relative_to(upload.folder)) for file in skipped)}")
    console.say(f"{len(uploaded)} files, {human_bytes(upload.nbytes)}")


def show_speeds(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the speeds of models side by side, each with the range of its rounds, and ratios to the first."""

    def rate(figure: dict[str, float]) -> str:
        return f"{figure['value']:.4g} ({figure['low']:.4g}–{figure['high']:.4g})"

    def ratio(figure: dict[str, float]) -> str:
        return f"{figure['value']:.2f}x ({figure['low']:.2f}–{figure['high']:.2f})"

    console.table(
        "tokens a second: median (least–most of the rounds)",
        ["model", "size", "memory", "prefill", "to first", "decode", "to first"],
        [
            [
                row["name"],
                human_bytes(row["nbytes"]),
                human_bytes(row["peak_bytes"]) if row["peak_bytes"] else "?",
                rate(row["prefill"]),
                ratio(row["prefill_ratio"]),
                rate(row["decode"]),
                ratio(row["decode_ratio"]),
            ]
            for row in rows
        ],
    )


def show_results(root: Path, console: Console) -> None:
    """Print the closing table of a run: teacher, students and baselines side by side."""
    run = load_run(root)
    if run.missing:
        console.warn(f"this run is not finished; not done yet: {', '.join(run.missing)}")
    for step, message in run.failures:
        console.warn(f"{step} failed: {message}")
    for text in run.damaged:
        console.warn(f"left out, since its records are damaged: {text}")
    console.table(f"{run.name}: on held-out text", HEADER, comparison(run))
    if tasks.asked(run):
        for title, table in (("scores", tasks.scores(run)), ("differences to the teacher", tasks.differences(run))):
            console.table(f"{run.name}: {title}", table.header, table.rows)
    for note in tasks.notes(run):
        console.warn(note)


def show_search(found: dict[str, Any], console: Console) -> None:
    """Print a search's candidates in the order of the last rung that each came to, and how the best is cut."""
    table = candidates(found)
    console.table("Candidates", table.header, table.rows)
    best = found["best"]
    console.say(f"best: {best['name']}, {found['measure']} {best['loss']:.4g}; {movement(found)}")
    cut = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in best["prune"].items()}
    sizes = " ".join(f"--{size.replace('_', '-')} {value}" for size, value in cut.items())
    way = f" by way of {best['via']}" if best["via"] else ""
    console.say(f"to cut it{way}: prunus prune TEACHER {sizes}")


def _shape_row(name: str, shape: Shape, teacher: Shape) -> list[str]:
    share = shape.non_embedding_parameters / teacher.non_embedding_parameters
    counts = [f"{shape.parameters:,}", f"{shape.non_embedding_parameters:,}", f"{share:.1%}"]
    return [name, *(str(getattr(shape, size)) for size in SIZES.values()), *counts]


def _fact(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
