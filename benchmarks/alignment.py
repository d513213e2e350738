"""What alignment recovers: the four skills of the built-in world, after a distillation on stories only.

    python benchmarks/alignment.py OUT [--json FILE] [--seeds 2]
    python benchmarks/alignment.py OUT --divide 70 --asked 2 --seeds 1    # minutes; only shows that everything runs

A student of half of `builtin:sapling`'s width is distilled on the world's stories, which contain no conversations, so
it loses the skills. From it, once each: SFT, and KD from Sapling, on the same 3,000 conversations. Then the case for
preferences, where answers are expensive and checks are cheap: SFT on 800 conversations; and from that model two
rounds of RPO, and two of DPO with the same options, on the model's answers to 1,200 prompts with checks (6 answers
each, best and worst; both methods share the pairs of the first round). Seeds vary these rounds, their prompts and
answers; scores of items are means over seeds.

Every model is evaluated on the same held-out items, whose names, values and tools are in no conversation. Differences
are paired with SFT on 800; intervals are 95 %, by bootstrap over items. Learning rate, SFT weight and temperature
were chosen on items of another world (`--items 91`). Intermediate results are kept in OUT.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from prunus.config import parse
from prunus.console import Console
from prunus.graph.hub import Hub
from prunus.graph.steps import Step
from prunus.models.locate import locate_model
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import load_recipe
from prunus.pipeline.run import execute, run_plan
from prunus.pipeline.unpacking import find_model
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.plan import Alignment
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.measure import read_items_of
from prunus.steps.evaluate.summary import Row, summarise

TEACHER = "builtin:sapling"
SHOWN = (("instruction_following", "prompt_strict"), ("roleplay", "consistent"), ("rag", "f1"), ("rag", "exact"),
         ("function_calling", "right"))  # fmt: skip
SKILLS = tuple(dict.fromkeys(skill for skill, _ in SHOWN))
CHAT = {"path": "builtin:world", "name": "chat"}
STAGE: dict[str, Any] = {"sequence_length": 224, "longer": "drop"}
SFT = {**STAGE, "batch_size": 9, "optimizer": "muon", "learning_rate": 6e-3, "min_learning_rate": 3e-4}
MANY, FEW, PROMPTS = 3000, 800, 1200  # conversations
PAIRS = {
    **STAGE, "batch_size": 32, "rounds": 2, "learning_rate": 5e-4, "beta": 0.2, "sft_weight": 0.2,
    "write": {"answers": 6, "max_new_tokens": 64, "temperature": 0.8},
}  # fmt: skip
METHODS = {"rpo": {**PAIRS, "eta": 4.0}, "dpo": PAIRS}
MIXTURE = {"rag": 2, "function_calling": 2, "instruction_following": 1, "roleplay": 1}
Items = dict[str, list[Row]]


def chats(count: int, seed: int, **world: Any) -> list[dict[str, Any]]:
    """Conversations of the built-in world."""
    return [{**CHAT, "world": {"conversations": count, "seed": seed, **world}}]


def stage(method: str, given: dict[str, Any], data: list[dict[str, Any]], divide: int) -> dict[str, Any]:
    """A stage of alignment, whose steps are smaller where there is less data."""
    return {"method": method, **given, "batch_size": max(1, given["batch_size"] // divide), "data": data}


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Up to the model that preferences start from."""
    shape = locate_model(TEACHER, None, "teacher").folder.shape
    tokens = 150_000 // options.divide
    world = {"seed": options.items, "held_out_items": options.asked}
    return {
        "name": "alignment",
        "seed": 0,
        "teacher": TEACHER,
        "data": {
            "corpus": [{"path": "builtin:world", "world": {"documents": 6000 // options.divide, "seed": 5}}],
            "held_out": [{"path": "builtin:world", "split": "held_out", "world": {"held_out_items": 100}}],
        },
        "score": {"samples": 128, "sequence_length": 96},
        "students": {
            "student": {
                "prune": {"hidden_size": shape.hidden_size // 2, "intermediate_size": shape.intermediate_size // 2}
            }
        },
        "distill": {
            "tokens": tokens, "sequence_length": 224, "batch_size": 9, "learning_rate": 4e-3,
            "min_learning_rate": 2e-4, "warmup_steps": min(5, tokens // (9 * 224) // 2),
        },
        "align": [stage("sft", SFT, chats(FEW // options.divide, 7), options.divide)],
        "evaluate": {
            "sequence_length": 224,
            "max_tokens": 4000,
            "prompt_count": 0,
            "tasks": {skill: {"data": "builtin:world", "world": world, "max_new_tokens": 96} for skill in SKILLS},
        },
        "runtime": {"device_batch_size": 128},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--items", type=int, default=0, help="seed of the world of the held-out items")
    parser.add_argument("--asked", type=int, default=300, help="items of each skill")
    parser.add_argument("--divide", type=int, default=1, help="divide every amount of text by this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, console = time.monotonic(), Console()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "alignment.yaml"
    file.write_text(yaml.safe_dump(recipe(options), sort_keys=False))
    plan = make_plan(load_recipe(file), options.out)
    run_plan(plan, console)
    done = {step.name: step for step in plan.steps}
    found: dict[str, list[Items]] = {
        "teacher": [items_of(done["teacher evaluate"])],
        "distilled on stories": [items_of(done["student evaluate-distilled"])],
    }
    for method in ("sft", "distil"):
        given = stage(method, SFT, chats(MANY // options.divide, 7), options.divide)
        found[f"then {method} on 3,000"] = carry_out(plan, method, given, done["student distill"], console)
    found["then sft on 800"] = [items_of(done["student evaluate"])]
    for seed in range(options.seeds):
        data = chats(PROMPTS // options.divide, 23 + seed, turns=1, mixture=MIXTURE)
        for method, given in METHODS.items():
            round_of = {**stage(method, given, data, options.divide), "seed": seed}
            rounds = carry_out(plan, f"seed-{seed}", round_of, done["student align-1-sft"], console)
            for number, items in enumerate(rounds, start=1):
                found.setdefault(f"then {method}, round {number}", []).append(items)
    report(found, plan.recipe.evaluate, console, options, time.monotonic() - start)


def carry_out(plan: Plan, subject: str, given: dict[str, Any], start: Step, console: Console) -> list[Items]:
    """Do a stage, and ask each model that it makes; answers that another stage has of the same model are taken over."""
    steps = {step.name: step for step in plan.steps}
    asked = {name: value for name, value in steps["student evaluate"].inputs.items() if name != "model"}
    stages = Alignment((parse(AlignConfig, given, "stage"),), (), None, Hub(find_model))
    items = []
    for step in stages.steps(subject, start, steps["student evaluate"].inputs["teacher"], plan.root):
        console.heading(step.name, step.state())
        for folder in step.artifact.path.parent.glob(f"candidates-*-{step.artifact.key}"):
            if step.kind == "candidates" and not step.artifact.path.exists():
                shutil.copytree(folder, step.artifact.path)
        execute(step, plan.recipe.runtime, console)
        if step.kind == "align":
            measured = Step(
                subject, f"evaluate-{step.label}", plan.recipe.evaluate, {**asked, "model": step}, plan.root
            )
            execute(measured, plan.recipe.runtime, console)
            items.append(items_of(measured))
    return items


def items_of(step: Step) -> Items:
    """What each item of an evaluation is worth, by skill."""
    return read_items_of(step.artifact.path)


def averaged(several: list[Items]) -> Items:
    """The mean of each item's scores over seeds."""
    mean: Items = {}
    for skill in SKILLS:
        mean[skill] = []
        for rows in zip(*(items[skill] for items in several), strict=True):
            scores = {
                name: [sum(row["scores"][name][i] for row in rows) / len(rows) for i in (0, 1)]
                for name in rows[0]["scores"]
            }
            mean[skill].append({**rows[0], "scores": scores})
    return mean


def report(
    found: dict[str, list[Items]], config: EvaluateConfig, console: Console, options: argparse.Namespace, seconds: float
) -> None:
    """Show every model's scores, and how far each is from SFT on few conversations."""
    start, results = found["then sft on 800"][0], {}
    for name, several in found.items():
        mean = averaged(several)
        figures = {skill: summarise(mean[skill], start[skill], config)["metrics"] for skill in SKILLS}
        results[name] = {f"{skill} {metric}": figures[skill][metric] for skill, metric in SHOWN}
        for (skill, metric), figure in zip(SHOWN, results[name].values(), strict=True):
            alone = [summarise(one[skill], (), config)["metrics"][metric]["value"] for one in several]
            figure["seeds"] = alone
    rows = [[name, *map(_cell, each.values())] for name, each in results.items()]
    console.table("", ["model", *map(" ".join, SHOWN)], rows)
    facts = {"hardware": hardware(), "versions": versions(), "seconds": round(seconds), "seeds": options.seeds}
    facts |= {"recipe": recipe(options), "methods": METHODS, "results": results}
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def _cell(figure: dict[str, Any]) -> str:
    apart = figure["difference"]
    return f"{figure['value']:.3f} ({apart['value']:+.3f}: {apart['low']:+.3f} to {apart['high']:+.3f})"


if __name__ == "__main__":
    main()
