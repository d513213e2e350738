"""Which shape of half the size: what the search finds, beside the median candidate and the proportional one.

    python benchmarks/search.py OUT [--teacher stories260K|sapling] [--json FILE] [--add]

A dozen candidates of at most half the teacher's non-embedding parameters are searched by successive halving. Then all
of them go through the same full distillation once, which tells what each ranking was worth: that before recovery (the
cut as it is), and those after each rung. The found shape, the candidate in the middle of the first rung's order, and
the proportional shape go through it with two more seeds. Rankings are on documents of the corpus that are set aside;
figures are on held-out text that no ranking saw. What was done is kept in OUT, and an interrupted run goes on.

`--add` puts the teacher's figures beside those of others in FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import Plan, make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.pipeline.searching import FOUND
from prunus.search.halving import rank_correlation, ranking, regret

DATA = Path(os.environ.get("PRUNUS_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SEEDS = (0, 1, 2)
SEARCH = {
    "budget": "non-embedding <= 50%", "within": 0.04, "candidates": 12, "generations": 1, "rungs": 2, "eta": 2,
    "ranking_tokens": 20_000,
}  # fmt: skip
WORLD = "builtin:world"
TEACHERS: dict[str, dict[str, Any]] = {
    "stories260K": {
        "teacher": str(DATA / "stories260K" / "hf"),
        "data": {
            "corpus": [str(DATA / "tinystories" / "clean_train.jsonl")],
            "held_out": [str(DATA / "tinystories" / "clean_valid.jsonl")],
            "append_eos": False,
            "max_tokens": 1_000_000,
        },
        "score": {"samples": 128, "sequence_length": 256},
        "search": {**SEARCH, "distill": {"tokens": 61_440}},
        "distill": {
            "tokens": 122_880, "sequence_length": 256, "batch_size": 8, "learning_rate": 6e-3,
            "min_learning_rate": 3e-4, "warmup_steps": 5,
        },
        "evaluate": {"sequence_length": 256, "max_tokens": 30_000, "prompt_count": 0, "resamples": 500},
        "runtime": {"device_batch_size": 16},
    },
    "sapling": {
        "teacher": "builtin:sapling",
        "data": {
            "corpus": [
                {"path": WORLD, "name": "chat", "weight": 9, "world": {"conversations": 12_000, "seed": 5}},
                {"path": WORLD, "weight": 1, "world": {"documents": 4_000, "seed": 5}},
            ],
            "held_out": [
                {"path": WORLD, "split": "held_out", "world": {"held_out_items": 100}},
                {"path": WORLD, "name": "chat", "split": "held_out", "world": {"held_out_items": 100}},
            ],
            "held_out_fraction": 0.05,
            "max_tokens": 400_000,
        },
        "score": {"samples": 128, "sequence_length": 224},
        "search": {**SEARCH, "multiples": {"intermediate_size": 16}, "distill": {"tokens": 30_240}},
        "distill": {
            "tokens": 60_480, "sequence_length": 224, "batch_size": 9, "learning_rate": 6e-3,
            "min_learning_rate": 3e-4, "warmup_steps": 5, "attend_across_documents": False,
        },
        "evaluate": {"sequence_length": 224, "max_tokens": 15_000, "prompt_count": 0, "resamples": 500},
        "runtime": {"device_batch_size": 36, "precision": "probe"},
    },
}  # fmt: skip
"""The first rungs are half of the full distillation; the second, to which half of the candidates come, is as long."""


def main() -> None:
    """Search, distil, and print what the rankings were worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", choices=list(TEACHERS), default="stories260K")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true")
    given = parser.parse_args()
    start, root = time.monotonic(), given.out / given.teacher
    raw = {"name": given.teacher, "seed": 0, **TEACHERS[given.teacher]}
    plan = carry_out(raw, {"found-0": student({"shape": "search.best"}, raw, 0)}, root)
    searched = time.monotonic() - start
    found = json.loads((folder(plan, "search", "search") / FOUND).read_text())
    roles = roles_of(found)
    students = {
        name.replace(".", "-"): student({"via": one["cut"]["via"], **one["cut"]["prune"]}, raw, 0)
        for name, one in found["candidates"].items()
    }
    students |= {
        f"{role}-{seed}": student(found["candidates"][name]["cut"]["prune"], raw, seed)
        for role, name in roles.items()
        for seed in SEEDS[1:]
    }
    plan = carry_out(raw, students, root)
    facts = figures(plan, found, roles)
    facts |= {
        "hardware": hardware(),
        "versions": versions(),
        "settings": TEACHERS[given.teacher] | {"teacher": given.teacher},
    }
    facts["seconds"] = {"search": round(searched), "all": round(time.monotonic() - start)}
    del facts["settings"]["data"]
    show(facts, found)
    if given.json:
        others = json.loads(given.json.read_text()) if given.add and given.json.is_file() else {}
        given.json.write_text(json.dumps({**others, given.teacher: facts}, indent=2) + "\n")


def student(prune: dict[str, Any], raw: dict[str, Any], seed: int) -> dict[str, Any]:
    """A student that is cut so, and goes through the whole distillation with this seed."""
    return {"prune": prune, "distill": {**raw["distill"], "seed": seed}}


def carry_out(raw: dict[str, Any], students: dict[str, Any], root: Path) -> Plan:
    """Plan and do."""
    recipe = parse(Recipe, {**raw, "students": students}, "benchmark")
    return run_plan(make_plan(recipe, root), Console())


def folder(plan: Plan, subject: str, label: str) -> Path:
    """Where a step of a plan left its result."""
    return next(step.artifact.path for step in plan.steps if (step.subject, step.label) == (subject, label))


def roles_of(found: dict[str, Any]) -> dict[str, str]:
    """The found shape, the one in the middle of the first rung's order, and the proportional one, by name."""
    order = found["order"][1]
    return {"found": found["best"]["name"], "median": order[len(order) // 2], "proportional": found["proportional"]}


def figures(plan: Plan, found: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
    """KL of everything after the full distillation, and what each ranking is worth against it."""

    def kl(subject: str) -> float:
        path = folder(plan, subject, "evaluate") / "results.json"
        return float(json.loads(path.read_text())["figures"]["kl"]["value"])

    measure, candidates = found["measure"], found["candidates"]
    full = {name: kl(name) for name in candidates}
    stages = {"before recovery": {name: one["before"][measure]["value"] for name, one in candidates.items()}}
    for rung, tokens in enumerate(found["tokens"]):
        stages[f"after {tokens} tokens"] = {
            name: one["rungs"][rung][measure]["value"] for name, one in candidates.items() if len(one["rungs"]) > rung
        }
    seeds = {role: [full[name], *(kl(f"{role}-{seed}") for seed in SEEDS[1:])] for role, name in roles.items()}
    return {
        "shapes": found["shapes"],
        "candidates": {
            name: {**one["dimensions"], **one["figures"], "kl": full[name]} for name, one in candidates.items()
        },
        "roles": roles,
        "seeds": seeds,
        "rankings": {stage: worth(losses, full) for stage, losses in stages.items()},
        "settled_at_tokens": found["settled_at_tokens"],
        "order": found["order"],
    }


def worth(losses: dict[str, float], full: dict[str, float]) -> dict[str, Any]:
    """What a ranking says of that after full distillation: correlation, pairs told wrongly, what its first costs."""
    pairs = list(combinations(losses, 2))
    wrong = sum((losses[a] - losses[b]) * (full[a] - full[b]) < 0 for a, b in pairs)
    return {
        "candidates": len(losses),
        "rank_correlation": rank_correlation(losses, full),
        "pairs_told_wrongly": wrong / len(pairs) if pairs else 0.0,
        "chosen": ranking(losses)[0],
        "place_of_chosen": ranking(full).index(ranking(losses)[0]) + 1,
        "regret": regret(losses, full),
    }


def show(facts: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    order = ranking({name: one["kl"] for name, one in facts["candidates"].items()})
    roles = {name: role for role, name in reversed(facts["roles"].items())}
    rows = [[name, roles.get(name, ""), f"{facts['candidates'][name]['kl']:.4f}"] for name in order]
    console.table("KL on held-out text after the full distillation, seed 0", ["shape", "", "KL"], rows)
    rows = []
    for role, values in facts["seeds"].items():
        gaps = [mine - best for mine, best in zip(values, facts["seeds"]["found"], strict=True)]
        rows.append([role, facts["roles"][role], f"{mean(values):.4f} ± {stdev(values):.4f}",
                     ", ".join(f"{gap:+.4f}" for gap in gaps)])  # fmt: skip
    console.table(f"{len(SEEDS)} seeds", ["", "shape", "KL, mean ± sd", "less found, seed by seed"], rows)
    rows = []
    for stage, one in facts["rankings"].items():
        rank, place = one["rank_correlation"], one["place_of_chosen"]
        cells = ["" if rank is None else f"{rank:.2f}", f"{one['pairs_told_wrongly']:.0%}"]
        rows.append([stage, str(one["candidates"]), *cells, f"{one['chosen']} ({place}.)", f"{one['regret']:.4f}"])
    header = ["ranking", "candidates", "rank correlation with the full", "pairs wrong", "chooses", "costs, KL"]
    console.table("What each ranking is worth", header, rows)
    console.say(f"search {facts['seconds']['search']} s, all {facts['seconds']['all']} s on {facts['hardware']}")


if __name__ == "__main__":
    main()
