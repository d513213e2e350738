"""The best shape of half the size: the search's choice compared with the median candidate and the proportional shape.

    python benchmarks/search.py OUT [--teacher stories260K|sapling] [--whole] [--tokens N] [--json FILE] [--add]
    python benchmarks/search.py OUT --divide 15      # a few minutes; only shows that everything runs

A dozen candidates of at most half the teacher's non-embedding parameters are searched by successive halving. The
chosen shape, the candidate in the middle of the first rung's order, and the proportional shape then go through the
same full distillation with three seeds each. How often a ranking would have chosen worse is measured by the rankings
after it, on the candidates that both have. With `--whole` every candidate goes through the full distillation too, and
the rankings are compared with that. Rankings use documents of the corpus that are set aside; the figures of the full
distillation are for held-out text that no ranking used. Intermediate results are kept in OUT, and an interrupted
benchmark continues.

`--add` adds the teacher's figures to those of others in FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.pipeline.search.config import RECORD
from prunus.pipeline.search.halving import rank_correlation, ranking, regret
from prunus.report.shapes import candidates

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
        "evaluate": {"sequence_length": 256, "max_tokens": 10_000, "prompt_count": 0, "resamples": 500},
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
        "runtime": {"device_batch_size": 36, "precision": "auto"},
    },
}  # fmt: skip
"""The first rungs are half of the full distillation; the second, to which half of the candidates come, is as long."""


def main() -> None:
    """Search, distil, and print what the rankings were worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", choices=list(TEACHERS), default="stories260K")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--tokens", type=int, help="tokens of the full distillation, in place of the default")
    parser.add_argument("--divide", type=int, default=1, help="divide every amount of text by this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true")
    given = parser.parse_args()
    start, root = time.monotonic(), given.out / given.teacher
    raw = {"name": given.teacher, "seed": 0, **settings(given.teacher, given.divide)}
    raw["distill"]["tokens"] = given.tokens or raw["distill"]["tokens"]
    plan = carry_out(raw, {"best": student({"shape": "search.best"}, raw, SEEDS[0])}, root)
    searched = time.monotonic() - start
    found = json.loads((folder(plan, "search", "search") / RECORD).read_text())
    roles = roles_of(found)
    wanted = [(name, seed) for name in dict.fromkeys(roles.values()) for seed in SEEDS]
    wanted += [(name, SEEDS[0]) for name in found["candidates"] if given.whole and name not in roles.values()]
    plan = carry_out(raw, {f"{name}-{seed}": whole(found, name, raw, seed) for name, seed in wanted}, root)
    facts = figures(plan, found, roles, wanted)
    kept = {key: value for key, value in raw.items() if key not in ("name", "seed", "teacher", "data")}
    facts |= {"settings": kept, "hardware": hardware(), "versions": versions()}
    facts["seconds"] = {"search": round(searched), "all": round(time.monotonic() - start)}
    show(facts, found)
    if given.json:
        others = json.loads(given.json.read_text()) if given.add and given.json.is_file() else {}
        given.json.write_text(json.dumps({**others, given.teacher: facts}, indent=2) + "\n")


def settings(teacher: str, divide: int) -> dict[str, Any]:
    """A teacher's part of the recipe, with every amount of text divided."""
    raw = deepcopy(TEACHERS[teacher])
    raw["search"]["distill"] = {**raw["distill"], **raw["search"]["distill"]}
    raw["search"]["distill"]["tokens"] //= divide
    for part, key in (("data", "max_tokens"), ("score", "samples"), ("search", "ranking_tokens"),
                      ("distill", "tokens"), ("evaluate", "max_tokens")):  # fmt: skip
        raw[part][key] //= divide
    for training in (raw["distill"], raw["search"]["distill"]):
        steps = training["tokens"] // (training["batch_size"] * training["sequence_length"])
        training["warmup_steps"] = min(training["warmup_steps"], steps // 2)
    return raw


def student(prune: dict[str, Any], raw: dict[str, Any], seed: int) -> dict[str, Any]:
    """A student that is cut so, and goes through the whole distillation with this seed."""
    return {"prune": prune, "distill": {**raw["distill"], "seed": seed}}


def whole(found: dict[str, Any], name: str, raw: dict[str, Any], seed: int) -> dict[str, Any]:
    """The student of a candidate."""
    cut = found["candidates"][name]["cut"]
    return student({**cut["prune"], "via": cut["via"]}, raw, seed)


def carry_out(raw: dict[str, Any], students: dict[str, Any], root: Path) -> Plan:
    """Plan and do."""
    recipe = parse(Recipe, {**raw, "students": students}, "benchmark")
    plan = make_plan(recipe, root)
    steps = tuple(step for step in plan.steps if step.subject != "best")  # who waits for the search is not wanted
    return run_plan(replace(plan, steps=steps, rest=None), Console())


def folder(plan: Plan, subject: str, label: str) -> Path:
    """Where a step of a plan left its result."""
    return next(step.artifact.path for step in plan.steps if (step.subject, step.label) == (subject, label))


def roles_of(found: dict[str, Any]) -> dict[str, str]:
    """The found shape, the one in the middle of the first rung's order, and the proportional one, by name."""
    order = found["order"][1]
    return {"found": found["best"]["name"], "median": order[len(order) // 2], "proportional": found["proportional"]}


def figures(plan: Plan, found: dict[str, Any], roles: dict[str, str], wanted: list[tuple[str, int]]) -> dict[str, Any]:
    """KL of everything after the full distillation, and what each ranking is worth against those after it."""
    full: dict[str, list[float]] = {}
    for name, seed in wanted:
        results = json.loads((folder(plan, f"{name}-{seed}", "evaluate") / "results.json").read_text())
        full.setdefault(name, []).append(float(results["figures"]["kl"]["value"]))
    measure, tried = found["measure"], found["candidates"]
    stages = {"before recovery": {name: one["before"][measure]["value"] for name, one in tried.items()}}
    for rung, tokens in enumerate(found["tokens"]):
        stages[f"after {tokens} tokens"] = {
            name: one["rungs"][rung][measure]["value"] for name, one in tried.items() if len(one["rungs"]) > rung
        }
    if len(full) == len(tried):
        stages["after the full distillation"] = {name: values[0] for name, values in full.items()}
    return {
        "shapes": found["shapes"],
        "candidates": {name: {**one["dimensions"], **one["figures"]} for name, one in tried.items()},
        "losses": stages,
        "roles": roles,
        "seeds": full,
        "rankings": {f"{a}, judged {b}": worth(stages[a], stages[b]) for a, b in combinations(stages, 2)},
        "settled_at_tokens": found["settled_at_tokens"],
        "order": found["order"],
    }


def worth(losses: dict[str, float], later: dict[str, float]) -> dict[str, Any]:
    """What a ranking says of a later one: correlation, pairs told wrongly, and what its first costs there."""
    both = {name: losses[name] for name in losses if name in later}
    pairs = list(combinations(both, 2))
    wrong = sum((losses[a] - losses[b]) * (later[a] - later[b]) < 0 for a, b in pairs)
    return {
        "candidates": len(both),
        "rank_correlation": rank_correlation(losses, later),
        "pairs_told_wrongly": wrong / len(pairs) if pairs else 0.0,
        "chosen": ranking(both)[0],
        "place_of_chosen": ranking(later).index(ranking(both)[0]) + 1,
        "regret": regret(losses, later),
    }


def show(facts: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    table = candidates(found)
    console.table("Candidates", table.header, table.rows)
    rows = []
    best = facts["seeds"][facts["roles"]["found"]]
    for role, name in facts["roles"].items():
        values = facts["seeds"][name]
        gaps = [mine - least for mine, least in zip(values, best, strict=True)]
        told = [f"{mean(values):.4f} ± {stdev(values):.4f}", ", ".join(f"{gap:+.4f}" for gap in gaps)]
        rows.append([role, name, *told])
    header = ["", "shape", "KL, mean ± sd", "less found, seed by seed"]
    console.table(f"After the full distillation, {len(SEEDS)} seeds, held-out text", header, rows)
    rows = []
    for stage, one in facts["rankings"].items():
        rank, place = one["rank_correlation"], one["place_of_chosen"]
        cells = ["" if rank is None else f"{rank:.2f}", f"{one['pairs_told_wrongly']:.0%}"]
        rows.append([stage, str(one["candidates"]), *cells, f"{one['chosen']} ({place}.)", f"{one['regret']:.4f}"])
    header = ["ranking", "candidates", "rank correlation", "pairs wrong", "chooses", "costs, KL"]
    console.table("What each ranking is worth", header, rows)
    console.say(f"search {facts['seconds']['search']} s, all {facts['seconds']['all']} s on {facts['hardware']}")


if __name__ == "__main__":
    main()
