"""What alignment gives back: the four skills of the built-in world, after a distillation on stories alone.

    python benchmarks/alignment.py OUT [--json FILE]

A student of `builtin:sapling` with half of its layers is distilled on the world's stories, which hold no conversation,
and so has lost the skills. From there: SFT; KD from Sapling on the same conversations' answers; and from SFT two rounds
of RPO, and two of DPO, on what the model itself answers to prompts with checks (8 times each, best and worst). Pairs
of the first round are the same for both. Every model is asked the same held-out items, whose names, values and tools no
conversation has; intervals are 95 %, by bootstrap over items. What was done is kept in OUT.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from prunus.align.config import AlignConfig
from prunus.config import parse
from prunus.console import Console
from prunus.data.config import ChatSource
from prunus.pipeline.aligning import Alignment
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import load_recipe
from prunus.pipeline.run import execute, run_plan
from prunus.pipeline.steps import Step

SKILLS = ("instruction_following", "roleplay", "rag", "function_calling")
SHOWN = (("instruction_following", "prompt_strict"), ("roleplay", "consistent"), ("rag", "f1"), ("rag", "exact"),
         ("function_calling", "right"))  # fmt: skip
CHAT = {"path": "builtin:world", "name": "chat"}
STAGE: dict[str, Any] = {"sequence_length": 224, "longer": "drop"}
SFT = {**STAGE, "batch_size": 9, "optimizer": "muon", "learning_rate": 6e-3, "min_learning_rate": 3e-4}
PAIRS = {
    **STAGE, "batch_size": 32, "rounds": 2, "epochs": 2, "learning_rate": 5e-4,
    "write": {"answers": 8, "max_new_tokens": 80}, "data": [{**CHAT, "limit": 512, "world": {"seed": 23}}],
}  # fmt: skip
RECIPE = {
    "name": "alignment",
    "seed": 0,
    "teacher": "builtin:sapling",
    "data": {
        "corpus": [{"path": "builtin:world", "world": {"documents": 6000, "seed": 5}}],
        "held_out": [{"path": "builtin:world", "split": "held_out", "world": {"held_out_items": 100}}],
        "chat": [{**CHAT, "world": {"conversations": 9000, "seed": 7}}],
    },
    "score": {"samples": 128, "sequence_length": 96},
    "students": {"student": {"prune": {"num_hidden_layers": 2}}},
    "distill": {
        "tokens": 150_000, "sequence_length": 224, "batch_size": 9, "learning_rate": 4e-3, "min_learning_rate": 2e-4,
        "warmup_steps": 5,
    },
    "align": [{"method": "sft", **SFT}],
    "evaluate": {
        "sequence_length": 224,
        "max_tokens": 20_000,
        "prompt_count": 1,
        "tasks": {skill: {"data": "builtin:world", "limit": 100, "max_new_tokens": 96} for skill in SKILLS},
    },
    "runtime": {"device_batch_size": 32},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=["distil", "rpo", "dpo"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "alignment.yaml"
    file.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    plan = make_plan(load_recipe(file), options.out)
    run_plan(plan, console)
    done = {step.name: step for step in plan.steps}
    found = {
        "teacher": done["teacher evaluate"],
        "distilled on stories": done["student evaluate-distilled"],
        "sft": done["student evaluate"],
    }
    distilled, aligned = done["student distill"], done["student align-1-sft"]
    branches = {"distil": (distilled, SFT), "rpo": (aligned, PAIRS), "dpo": (aligned, PAIRS)}
    inputs = {name: given for name, given in done["student evaluate"].inputs.items() if name != "model"}
    for method in options.methods:
        start, config = branches[method]
        stage = parse(AlignConfig, {"method": method, **config}, method)
        stages = Alignment((stage,), tuple(parse(ChatSource, one, "chat") for one in RECIPE["data"]["chat"]), None)
        for step in stages.steps(method, start, done["student evaluate"].inputs["teacher"], options.out):
            console.heading(step.name, step.state())
            execute(step, plan.recipe.runtime, console)
            if step.kind == "align":
                name = method + step.label.partition("round")[2].join((" ", "")).rstrip()
                found[name] = Step(
                    method, f"evaluate-{step.label}", plan.recipe.evaluate, {**inputs, "model": step}, options.out
                )
                execute(found[name], plan.recipe.runtime, console)
    facts = {"hardware": hardware(), "versions": versions(), "recipe": RECIPE, "pairs": PAIRS, "results": {}}
    for name, step in found.items():
        tasks = json.loads((step.artifact.path / "results.json").read_text())["tasks"]
        facts["results"][name] = {
            f"{skill} {metric}": {key: tasks[skill]["metrics"][metric][key] for key in ("value", "low", "high")}
            for skill, metric in SHOWN
        }
    console.table("", ["model", *map(" ".join, SHOWN)], [[name, *map(_cell, each.values())] for name, each in
                                                         facts["results"].items()])  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


if __name__ == "__main__":
    main()
