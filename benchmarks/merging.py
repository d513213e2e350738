"""Merges of two students of one teacher, each aligned to two of the four skills: which skills do they keep?

    python benchmarks/merging.py OUT [--json FILE]
    python benchmarks/merging.py OUT --tokens 4100 --conversations 16 32 --trials 6 --items 1 --limit 2    # minutes

`builtin:sapling` is pruned to two thirds of its width and distilled on the built-in world's stories, which contain no
conversations, so it loses the skills. From it one student is aligned (SFT) to follow instructions and play a person,
another, on five times as many conversations, to answer from passages and call functions. They are merged by their
mean, by task arithmetic, by TIES, and by evolution of task arithmetic's weights for each kind of module and each half
of the layers. The fitness is the mean reward on training conversations of a world that no model was trained on.
Results are for held-out items, whose names, values and tools are in no conversation and not in the fitness.
Differences to the evolved merge are paired by item; intervals are 95 %, by bootstrap over the items of each skill.
Intermediate results are kept in OUT.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from prunus.console import Console
from prunus.models.locate import locate_model
from prunus.pipeline.machine import hardware, versions
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import load_recipe
from prunus.pipeline.run import run_plan

TEACHER = "builtin:sapling"
COUNTED = {
    "instruction_following": "prompt_strict", "roleplay": "consistent", "rag": "f1", "function_calling": "right",
}  # fmt: skip
PAIRS = {"talks": ("instruction_following", "roleplay"), "works": ("rag", "function_calling")}
CHAT = {"path": "builtin:world", "name": "chat"}
RESAMPLES = 10_000


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The whole of it; the cut follows the teacher's size, whatever that is."""
    shape = locate_model(TEACHER, None, "teacher").folder.shape
    cut = {size: getattr(shape, size) * 2 // 3 // 16 * 16 for size in ("hidden_size", "intermediate_size")}
    own = {
        name: {"prune": cut, "align": [stage(skills, count)]}
        for (name, skills), count in zip(PAIRS.items(), options.conversations, strict=True)
    }
    both = list(PAIRS)
    based = {"of": both, "base": f"{both[0]}.distilled"}
    evolve = {
        "trials": options.trials, "items": options.items, "groups": 2, "max_new_tokens": 80,
        "tasks": {skill: {**CHAT, "world": {"mixture": {skill: 1}, "seed": 311}} for skill in COUNTED},
    }  # fmt: skip
    merges = {
        "mean": {"of": both, "method": "linear"},
        "arithmetic": {**based, "method": "task_arithmetic"},
        "ties": {**based, "method": "ties"},
        "evolved": {**based, "method": "task_arithmetic", "weights": [0.75, 0.75], "evolve": evolve},
    }
    return {
        "name": "merging",
        "seed": options.seed,
        "teacher": TEACHER,
        "data": {
            "corpus": [{"path": "builtin:world", "world": {"documents": 6_000, "seed": 5}}],
            "held_out": [{"path": "builtin:world", "split": "held_out", "world": {"held_out_items": 100}}],
            "max_tokens": 400_000,
        },
        "score": {"samples": 128, "sequence_length": 96},
        "students": {**own, **{name: {"merge": merge} for name, merge in merges.items()}},
        "distill": {
            "tokens": options.tokens, "sequence_length": 224, "batch_size": 9, "attend_across_documents": False,
            "learning_rate": 6e-3, "min_learning_rate": 3e-4, "warmup_steps": min(10, options.tokens // (9 * 224) // 2),
        },
        "evaluate": {
            "sequence_length": 224, "max_tokens": 5_000, "prompt_count": 1,
            "tasks": {skill: {"data": "builtin:world", "limit": options.limit, "max_new_tokens": 96}
                      for skill in COUNTED},
        },
        "runtime": {"device_batch_size": 48},
    }  # fmt: skip


def stage(skills: tuple[str, ...], count: int) -> dict[str, Any]:
    """SFT on conversations of some skills alone."""
    world = {"conversations": count, "seed": 6, "mixture": dict.fromkeys(skills, 1)}
    return {
        "method": "sft", "data": [{**CHAT, "world": world}], "sequence_length": 224, "longer": "drop",
        "batch_size": min(9, count // 8),
        "optimizer": "muon", "learning_rate": 4e-3, "min_learning_rate": 2e-4,
    }  # fmt: skip


def items_of(folder: Path) -> dict[str, np.ndarray]:
    """What each item is worth by the metric that counts, by skill, in order of the items."""
    found: dict[str, dict[str, float]] = {skill: {} for skill in COUNTED}
    for line in (folder / "items.jsonl").read_text().splitlines():
        row = json.loads(line)
        value, count = row["scores"][COUNTED[row["task"]]]
        found[row["task"]][row["id"]] = value / count
    return {skill: np.array([each[name] for name in sorted(each)]) for skill, each in found.items()}


def figure(scores: dict[str, np.ndarray], seed: int = 0) -> dict[str, Any]:
    """The mean over skills, each counting alike, with its interval, and each skill's own."""
    draw = np.random.default_rng(seed)
    resampled = np.array(
        [each[draw.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1) for each in scores.values()]
    )

    def told(value: float, samples: np.ndarray) -> dict[str, float]:
        low, high = np.quantile(samples, [0.025, 0.975])
        return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}

    means = [float(each.mean()) for each in scores.values()]
    return {
        "mean of four": told(float(np.mean(means)), resampled.mean(axis=0)),
        **{skill: told(mean, row) for skill, mean, row in zip(scores, means, resampled, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tokens", type=int, default=150_000, help="tokens of the distillation that both students share"
    )
    parser.add_argument(
        "--conversations", type=int, nargs=2, default=[500, 2_500], help="conversations to align each student on"
    )
    parser.add_argument("--trials", type=int, default=90, help="trials of the evolution")
    parser.add_argument("--items", type=int, default=20, help="items of each skill in every trial")
    parser.add_argument("--limit", type=int, default=150, help="held-out items of each skill")
    options = parser.parse_args()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "merging.yaml"
    file.write_text(yaml.safe_dump(recipe(options), sort_keys=False))
    plan = make_plan(load_recipe(file), options.out)
    run_plan(plan, console)
    done = {step.name: step.artifact.path for step in plan.steps}
    names = {"teacher": "teacher evaluate", "distilled": f"{next(iter(PAIRS))} evaluate-distilled"}
    names |= {name: f"{name} evaluate" for name in plan.recipe.students}
    scores = {name: items_of(done[step]) for name, step in names.items()}
    differences = {
        name: figure({skill: scores["evolved"][skill] - each[skill] for skill in COUNTED})
        for name, each in scores.items()
        if name != "evolved"
    }
    records = [json.loads((path / "artifact.json").read_text()) for path in dict.fromkeys(done.values())]
    evolved = json.loads((done["evolved merge"] / "artifact.json").read_text())
    facts = {
        "hardware": hardware(),
        "versions": versions(),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "recipe": recipe(options),
        "parameters": {"teacher": plan.teacher.parameters, "student": plan.students["mean"].parameters},
        "evolution": {**evolved["metrics"], "seconds": evolved["seconds"]},
        "scores": {name: figure(each) for name, each in scores.items()},
        "evolved less": differences,
    }
    show(facts, console)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def show(facts: dict[str, Any], console: Console) -> None:
    """Print both tables."""
    for title, part in (("held-out items", "scores"), ("the evolved one less", "evolved less")):
        rows = [[name, *(_cell(value) for value in each.values())] for name, each in facts[part].items()]
        console.table(title, ["model", "mean of four", *COUNTED], rows)


def _cell(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


if __name__ == "__main__":
    main()
