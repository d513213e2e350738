"""Measurements on held-out text: teacher, students and references, each figure with its interval."""

from __future__ import annotations

from typing import Any

from prunus.console import human
from prunus.report.records import Result, Run

HEADER = (
    "model", "parameters", "non-emb.", "tokens", "NLL", "increase", "perplexity", "bits/byte", "KL", "top-1", "draft",
)  # fmt: skip
STAGES = {
    ("teacher", "evaluate-original"): "teacher, original",
    ("teacher", "evaluate"): "teacher",
}

STARTS = ("evaluate-pruned", "evaluate-merged")
"""Evaluations of students as they are before any training."""


def comparison(run: Run) -> list[list[str]]:
    """One row for each evaluated model, in the order of the recipe, then one for each failed step.

    `HEADER` names the columns.
    """
    failed = [[step, "failed", *[""] * (len(HEADER) - 2)] for step, _ in run.failures]
    return [*(_row(run, result) for result in run.of_kind("evaluate")), *failed]


def row_name(run: Run, result: Result) -> str:
    """The name of an evaluated model: its subject, and the steps that made it."""
    named = STAGES.get((result.subject, result.label))
    if named:
        corrected = result.label == "evaluate" and run.find("teacher", "correct")
        return f"{named}, corrected" if corrected and run.find("teacher", "evaluate-original") else named
    origin = _origin(run, result.subject)
    if origin is None:
        return f"{result.subject}: reference"
    trained = run.find(run.maker(result.subject), "distill")
    stages = ["distilled"] if result.label not in STARTS and trained else []
    if result.label == "evaluate" and (aligned := methods(run, result.subject)):
        stages.append("aligned" if aligned == ["distil"] else f"aligned ({', '.join(map(_method, aligned))})")
    return " + ".join([f"{result.subject}: {origin}", *stages])


def is_student(run: Run, result: Result) -> bool:
    """Whether an evaluated model is a student: neither the teacher nor a reference."""
    return result.subject != "teacher" and _origin(run, result.subject) is not None


def _method(name: str) -> str:
    """A method of alignment as papers write it."""
    return {"distil": "distillation", "simpo": "SimPO", "cdpo": "cDPO"}.get(name, name.upper())


def merged_by(result: Result) -> str:
    """The merge method of a model."""
    config = result.record["config"]
    evolved = config["evolve"]["trials"] > 0
    tuned = evolved and config["evolve"]["i_am_tuning_on_the_test_set"]
    return config["method"].replace("_", " ") + ", evolved" * evolved + " ON THE TEST SET" * tuned


def _origin(run: Run, subject: str) -> str | None:
    """How a student was made before any training; None for a model that is not a student."""
    merge, prune = run.find(subject, "merge"), run.find(run.maker(subject), "prune")
    if merge is not None:
        return f"merged ({merged_by(merge)})"
    if prune is None:
        return None
    if prune.record["config"]["init"] == "random":
        return "from scratch"
    if prune.record["config"]["importance"]["channels"]["criterion"] == "random":
        return "pruned at random"
    return "pruned" if run.maker(subject) == subject else "pruned, in a nest"


def methods(run: Run, subject: str) -> list[str]:
    """The methods of a model's stages of alignment, in order, without reward models, which do not change it."""
    stages = [result.record["config"]["method"] for result in run.of_kind("align") if result.subject == subject]
    return [method for method in stages if method != "reward"]


def _row(run: Run, result: Result) -> list[str]:
    facts = result.json("results.json")
    figures = facts["figures"]
    return [
        row_name(run, result),
        human(facts["parameters"]),
        human(facts["non_embedding_parameters"]),
        _tokens(run, result),
        interval(figures["nll"], 3),
        interval(figures["nll_increase"], 3, signed=True) if figures.get("nll_increase") else "",
        _value(figures.get("perplexity"), ".4g"),
        _value(figures.get("bits_per_byte"), ".4f"),
        interval(figures["kl"], 3) if figures.get("kl") else "",
        _value(figures.get("agreement"), ".1%"),
        _value(figures.get("acceptance"), ".1%"),
    ]


def _tokens(run: Run, result: Result) -> str:
    """Tokens of text that the model was trained on, without conversations of alignment."""
    labels = ["distill-via"]  # between two cuts
    if result.label in ("evaluate", "evaluate-distilled"):
        labels.append("correct" if result.subject == "teacher" else "distill")
    trained = (run.find(run.maker(result.subject), label) for label in labels)
    return human(sum(one.record["metrics"]["tokens"] for one in trained if one))


def _value(figure: dict[str, Any] | None, form: str) -> str:
    return format(figure["value"], form) if figure else ""


def interval(figure: dict[str, Any], digits: int, signed: bool = False) -> str:
    """A value and half the width of its interval."""
    half = (figure["high"] - figure["low"]) / 2
    return f"{figure['value']:{'+' if signed else ''}.{digits}f} ± {half:.{digits}f}"
