"""A nest against each of its sizes trained alone with the same tokens: KL to the teacher, and CPU seconds.

    python benchmarks/nest.py FOLDER [--tokens 36000] [--rates 2e-3] [--seeds 0 1 2] [--json FILE]

The teacher is `builtin:sapling`, the text that of recipes/quickstart.yaml. Nest and single sizes have the same options
but for the learning rate: each takes the one of `--rates` that is best on the first seed, on one half of the held-out
text (of a nest, by the mean of its sizes); the other half gives the figures. A size between two trained ones is cut out
of the nest and measured too. CPU seconds are of the distillation alone, teacher included.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from prunus.config import parse
from prunus.console import Console
from prunus.data.blocks import calibration_set
from prunus.data.tokens import Tokens
from prunus.graph.steps import Step
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import execute
from prunus.runtime import Runtime
from prunus.steps.cutout.config import CutoutConfig
from prunus.steps.prune.damage import divergence

NEST = {
    "large": {"hidden_size": 168, "intermediate_size": 640},
    "medium": {"hidden_size": 152, "intermediate_size": 560},
    "small": {"hidden_size": 136, "intermediate_size": 480, "num_hidden_layers": 5},
}
BETWEEN = {"hidden_size": 160, "intermediate_size": 600}
"""Between `large` and `medium`."""
LENGTH = 224  # tokens of a sequence, as in the quickstart
HELD_OUT = 96  # sequences of it, of which half choose the rate
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("--tokens", type=int, default=36_000)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedule", default="alternate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    best: dict[str, float] = {}
    for seed in options.seeds:
        rates = {kind: [best[kind]] if kind in best else options.rates for kind in ("nest", *NEST)}
        plan = make_plan(parse(Recipe, recipe_of(options, rates, seed), "recipe"), options.folder / f"seed-{seed}")
        found = [measured(plan, kind, i, rate, seed) for kind in rates for i, rate in enumerate(rates[kind])]
        for kind in rates:
            best[kind] = min((row for row in found if row["kind"] == kind), key=lambda row: row["tune"])["rate"]
        rows += found
        save(rows, best, options)
    show(rows, best)


def recipe_of(options: argparse.Namespace, rates: dict[str, list[float]], seed: int) -> Row:
    """The quickstart's text, and a student for the nest and for each size alone, at each of its rates."""
    chat = {"path": "builtin:world", "name": "chat", "weight": 9, "world": {"conversations": 12_000, "seed": 5}}
    stories = {"path": "builtin:world", "weight": 1, "world": {"documents": 4_000, "seed": 5}}
    held_out = {"split": "held_out", "path": "builtin:world", "world": {"held_out_items": 100}}
    heal = {"heal": {"samples": 32, "sequence_length": LENGTH}, "check_samples": 0}
    students = {
        f"{kind}{i}": {
            "prune": {**({"nest": NEST} if kind == "nest" else NEST[kind]), **heal},
            "distill": {
                "learning_rate": rate,
                "min_learning_rate": rate / 20,
                **({"nest": {"schedule": options.schedule}} if kind == "nest" else {}),
            },
        }
        for kind, tried in rates.items()
        for i, rate in enumerate(tried)
    }
    return {
        "seed": seed,
        "teacher": "builtin:sapling",
        "data": {
            "corpus": [chat, stories],
            "held_out": [held_out, {**held_out, "name": "chat"}],
            "max_tokens": 400_000,
        },
        "score": {"samples": 256, "sequence_length": 96},
        "students": students,
        "distill": {
            "tokens": options.tokens,
            "sequence_length": LENGTH,
            "batch_size": options.batch_size,
            "attend_across_documents": False,
            "warmup_steps": 4,
        },
        "evaluate": {"sequence_length": LENGTH, "max_tokens": 2_000, "prompt_count": 0},
    }


def measured(plan: Plan, kind: str, number: int, rate: float, seed: int) -> Row:
    """Train one student, and measure it or all of its sizes."""
    runtime, quiet, row = Runtime(device_batch_size=36), Console(quiet=True), {"kind": kind, "rate": rate, "seed": seed}
    name, steps = f"{kind}{number}", {step.name: step for step in plan.steps}
    mine = [step for step in plan.steps if step.subject == name or step.subject.startswith(f"{name}-")]
    shared = [step for step in plan.steps if step.subject == "data" or step.name == "teacher score"]
    for step in (*shared, *(step for step in mine if not step.label.startswith("evaluate"))):
        begin = time.process_time()
        execute(step, runtime, quiet)
        if step.name == f"{name} distill":
            row["cpu_seconds"] = time.process_time() - begin
    trained = steps[f"{name} distill"]
    folders = {kind: trained.value}
    if kind == "nest":
        folders = {size: steps[f"{name}-{size} cutout"].value for size in NEST}
        between = Step(f"{name}-between", "cutout", CutoutConfig(**BETWEEN), {"model": trained}, plan.root)
        folders["between"] = execute(between, runtime, quiet)
    teacher = load_model(Path("src/prunus/world/sapling"), torch.device("cpu"), torch.float32)
    held_out = Tokens.open(steps["data held_out"].value)
    windows = torch.from_numpy(calibration_set(held_out, HELD_OUT, LENGTH, 0))
    row["sizes"] = {}
    for size, folder in folders.items():
        model = load_model(folder, torch.device("cpu"), torch.float32)
        tune, test = (divergence(teacher, model, windows[start::2]) for start in (0, 1))
        count = ModelFolder(folder).shape.non_embedding_parameters
        row["sizes"][size] = {"tune": tune, "kl": test, "non_embedding": count}
    row["tune"] = mean(one["tune"] for size, one in row["sizes"].items() if size != "between")
    print(json.dumps(row), flush=True)
    return row


def save(rows: list[Row], best: dict[str, float], options: argparse.Namespace) -> None:
    facts = {
        "hardware": hardware(), "versions": versions(), "threads": options.threads, "teacher": "builtin:sapling",
        "nest": NEST, "between": BETWEEN, "tokens": options.tokens, "batch_size": options.batch_size,
        "schedule": options.schedule,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps({**facts, "rates": best, "rows": rows}, indent=2) + "\n")


def show(rows: list[Row], best: dict[str, float]) -> None:
    """One line for each size: its KL in the nest and alone, by seed."""
    chosen = [row for row in rows if row["rate"] == best[row["kind"]]]
    kls: dict[tuple[str, str], list[float]] = {}
    for row in chosen:
        for size, one in row["sizes"].items():
            kls.setdefault((size, "nest" if row["kind"] == "nest" else "alone"), []).append(one["kl"])
    for size in (*NEST, "between"):
        for way in ("nest", "alone"):
            if (size, way) in kls:
                print(f"{size:8}{way:8}" + "".join(f"{kl:9.4f}" for kl in kls[size, way]))
    seconds = {kind: mean(row["cpu_seconds"] for row in chosen if row["kind"] == kind) for kind in best}
    print("CPU seconds: " + ", ".join(f"{kind} {value:.1f}" for kind, value in seconds.items()))


if __name__ == "__main__":
    main()
