"""The cost of storing little of the teacher: bytes per token, and KL to the teacher after the same short training.

    python benchmarks/targets.py TEACHER --corpus FILE --held-out FILE [--json FILE]

One student, with the same cut and seed each time, learns from its teacher online, or from stored targets: the 64
likeliest tokens, or 12 or 50 sampled ones. KL is measured on held-out text with the full distributions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan

VARIANTS: dict[str, dict[str, Any]] = {
    "online": {},
    "top-64": {"keep": "top_k", "count": 64},
    "top-12": {"keep": "top_k", "count": 12},
    "12 samples": {"keep": "samples", "count": 12},
    "50 samples": {"keep": "samples", "count": 50},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--prune", type=json.loads, default={"intermediate_size": 86})
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        found = {name: measured(options, kept, Path(folder) / "run") for name, kept in VARIANTS.items()}
    print(f"{hardware()}, {options.threads} threads, {options.tokens} tokens, seed {options.seed}")
    print(f"{'targets':12}{'bytes/token':>12}{'kept mass':>12}{'KL':>9}{'asking s':>10}{'training s':>12}")
    for name, row in found.items():
        print(
            f"{name:12}{row['bytes_per_token']:12.0f}{row['kept_mass']:12.3f}{row['kl']:9.4f}"
            f"{row['asking_seconds']:10.1f}{row['training_seconds']:12.1f}"
        )
    if options.json:
        facts = {"hardware": hardware(), "versions": versions(), "teacher": Path(options.teacher).parent.name}
        facts |= {name: getattr(options, name) for name in ("prune", "tokens", "seed", "threads")}
        options.json.write_text(json.dumps({**facts, "found": found}, indent=2) + "\n")


def measured(options: argparse.Namespace, kept: dict[str, Any], root: Path) -> dict[str, float]:
    """One run; what it has in common with those before is there already."""
    recipe = {
        "seed": options.seed,
        "teacher": options.teacher,
        "data": {"corpus": [options.corpus], "held_out": [options.held_out]},
        "score": {"samples": 256, "sequence_length": 256},
        "targets": kept,
        "students": {"cut": {"prune": options.prune}},
        "distill": {
            "tokens": options.tokens, "sequence_length": 256, "batch_size": 8, "learning_rate": 2e-3,
            "min_learning_rate": 1e-4, "warmup_steps": min(10, options.tokens // (8 * 256) // 2), "states": "none",
            "targets": "cached" if kept else "online",
        },
        "evaluate": {"sequence_length": 256, "max_tokens": 30_000, "prompt_count": 0},
    }  # fmt: skip
    plan = make_plan(parse(Recipe, recipe, "benchmark"), root)
    run_plan(plan, Console(quiet=True))
    distill, evaluate = (record(plan, name) for name in ("cut distill", "cut evaluate"))
    asked = record(plan, "teacher targets") if kept else {"seconds": 0.0, "metrics": {}}
    return {
        "bytes_per_token": asked["metrics"].get("bytes_per_token", 0.0),
        "kept_mass": asked["metrics"].get("kept_mass", 1.0),
        "kl": evaluate["metrics"]["kl"],
        "nll": evaluate["metrics"]["nll"],
        "asking_seconds": asked["seconds"],
        "training_seconds": distill["seconds"],
        "pruned_kl": record(plan, "cut evaluate-pruned")["metrics"]["kl"],
    }


def record(plan: Plan, name: str) -> dict[str, Any]:
    """What a step wrote down."""
    (step,) = (step for step in plan.steps if step.name == name)
    found: dict[str, Any] = json.loads((step.artifact.path / "artifact.json").read_text())
    return found


if __name__ == "__main__":
    main()
