"""Quantisation-aware training: what rounding to a file's numbers costs a student, and what a short phase wins back.

    python benchmarks/quantise.py OUT [--json FILE]
    python benchmarks/quantise.py OUT --tokens 4100 --phases gguf-q4_0:adamw:1e-4:2100     # tiny

`builtin:sapling` is cut to the width of the quickstart's student and distilled. Each phase then trains this student for
one format, from its own unrounded predictions on the same text. Every file is run in llama.cpp, and its KL is to the
unrounded student, on held-out text. Phases are FORMAT:OPTIMIZER:LEARNING_RATE:TOKENS. Intermediate results are kept in
OUT.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan

PHASES = (
    "gguf-q4_0:adamw:1e-4:100000", "gguf-q4_0:adamw:3e-4:100000", "gguf-q4_0:muon:1e-4:100000",
    "gguf-q4_k_m:adamw:1e-4:100000", "gguf-q4_0:adamw:1e-4:400000",
)  # fmt: skip
PLAIN = "plain"
CHAT = {"path": "builtin:world", "name": "chat"}
LENGTH = 224


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """One student without a phase, and one for each; they share every step before it."""
    common = {"sequence_length": LENGTH, "batch_size": 9, "attend_across_documents": False}
    students: dict[str, Any] = {PLAIN: {"prune": {"hidden_size": 128, "intermediate_size": 512}}}
    for number, phase in enumerate(options.phases, start=1):
        form, optimizer, rate, tokens = phase.split(":")
        qat = {"quantise": form, "tokens": int(tokens), "optimizer": optimizer, "learning_rate": float(rate), **common}
        students[f"phase{number}"] = {"prune": students[PLAIN]["prune"], "qat": qat}
    formats = dict.fromkeys(phase.partition(":")[0] for phase in options.phases)
    return {
        "name": "quantise",
        "seed": options.seed,
        "teacher": "builtin:sapling",
        "data": {
            "corpus": [
                {**CHAT, "weight": 9, "world": {"conversations": 12_000, "seed": 5}},
                {"path": "builtin:world", "weight": 1, "world": {"documents": 4_000, "seed": 5}},
            ],
            "held_out": [
                {"path": "builtin:world", "split": "held_out", "world": {"held_out_items": 100}},
                {**CHAT, "split": "held_out", "world": {"held_out_items": 100}},
            ],
            "max_tokens": 400_000,
        },
        "score": {"samples": 256, "sequence_length": 96},
        "students": students,
        "distill": {
            **common, "tokens": options.tokens, "learning_rate": 7.5e-4, "min_learning_rate": 3.75e-5,
            "warmup_steps": min(10, options.tokens // (9 * LENGTH) // 2),
        },
        "evaluate": {"sequence_length": LENGTH, "max_tokens": 5_000, "prompt_count": 0},
        "export": {"formats": list(formats), "check_tokens": options.check_tokens, "check_length": LENGTH},
        "runtime": {"device_batch_size": 36},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=200_000, help="of the student's distillation")
    parser.add_argument("--phases", nargs="+", default=PHASES)
    parser.add_argument("--check-tokens", type=int, default=10_000, help="held-out tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    plan = run_plan(make_plan(parse(Recipe, recipe(options), "quantise"), options.out), Console())
    records = {
        step.name: json.loads((step.artifact.path / "artifact.json").read_text())
        for step in plan.steps
        if step.label in ("qat", "export")
    }
    found = {
        step.subject: json.loads((step.artifact.path / "export.json").read_text())
        for step in plan.steps
        if step.label == "export"
    }
    kept: dict[str, Any] = {"hardware": hardware(), "versions": versions(), "seed": options.seed,
                            "distilled_tokens": options.tokens, "rows": []}  # fmt: skip
    for number, phase in enumerate(options.phases, start=1):
        name, form = f"phase{number}", phase.partition(":")[0]
        before, after = found[PLAIN][form], found[name][form]
        row = {
            "phase": phase, "seconds": records[f"{name} qat"]["seconds"], "nbytes": after["nbytes"],
            "held_out_tokens": after["tokens"],
            **{f"{key}_{when}": one[key] for key in ("kl", "kl_error", "top1", "perplexity")
               for when, one in (("before", before), ("after", after))},
        }  # fmt: skip
        row["won_back"] = 1 - row["kl_after"] / row["kl_before"]
        kept["rows"].append(row)
        print(f"{phase:34} {row['seconds']:6.0f} s  KL {row['kl_before']:.5f} ± {row['kl_error_before']:.5f} -> "
              f"{row['kl_after']:.5f} ± {row['kl_error_after']:.5f}  {row['won_back']:.0%} won back")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
