"""SIGKILL a small run at random moments and at named functions, and compare its result with an undisturbed run.

    python benchmarks/kills.py --kills 30 --out benchmarks/results/kills.json

The run is a recipe for the built-in teacher with every kind of step that keeps state. It is killed several times in a
row, each time in the resumed run. Then it may finish, and is compared with an undisturbed run: every file byte for
byte, JSON by value without times, speeds and memory. Report and cards, which contain times, are left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from prunus.pipeline.machine import hardware, versions

RECIPE: dict[str, Any] = {
    "name": "kills",
    "seed": 0,
    "teacher": "builtin:sapling",
    "data": {
        "corpus": [{"path": "builtin:world", "name": "chat", "world": {"conversations": 400}}],
        "held_out": [{"path": "builtin:world", "name": "chat", "split": "held_out", "world": {"conversations": 40}}],
    },
    "correct": {"tokens": 6_400, "sequence_length": 64, "batch_size": 4, "warmup_steps": 2},
    "score": {"samples": 32, "sequence_length": 64},
    "students": {
        "depth": {
            "prune": {"num_hidden_layers": 3},
            "align": [
                {
                    "method": "sft", "sequence_length": 224, "batch_size": 8, "longer": "drop",
                    "data": [{"path": "builtin:world", "name": "chat", "world": {"conversations": 200, "seed": 1}}],
                }
            ],
        },
    },
    "distill": {"tokens": 12_800, "optimizer": "adamw", "sequence_length": 64, "batch_size": 4, "warmup_steps": 2},
    "evaluate": {
        "sequence_length": 128, "max_tokens": 2_000, "max_new_tokens": 4, "prompt_count": 1, "resamples": 100,
        "tasks": {"rag": {"data": "builtin:world", "limit": 4, "max_new_tokens": 16}},
    },
    "export": {"formats": ["gguf-f16"], "check_tokens": 256},
    "runtime": {"checkpoint_minutes": 0.02, "device_batch_size": 4},
}  # fmt: skip
Target = tuple[str, str, str]
NAMED: tuple[Target, ...] = (
    ("prunus.graph.artifact", "Artifact.begin", "before"),
    ("prunus.graph.artifact", "Artifact.begin", "after"),
    ("prunus.steps.correct.step", "save_trained", "before"),
    ("prunus.graph.artifact", "Artifact.finish", "before"),
    ("prunus.graph.artifact", "replace_json", "after"),
    ("prunus.graph.artifact", "Artifact._put_in_place", "before"),
    ("prunus.graph.artifact", "Artifact._put_in_place", "after"),
    ("prunus.models.checkpoint", "_write_all", "before"),
    ("prunus.models.checkpoint", "_write_all", "after"),
    ("prunus.steps.distill.step", "train", "after"),
    ("prunus.steps.distill.step", "save_trained", "before"),
    ("prunus.steps.distill.step", "save_trained", "after"),
    ("prunus.training.record", "keep_only", "before"),
    ("prunus.steps.align.step", "save_trained", "before"),
    ("prunus.steps.align.step", "save_trained", "after"),
    ("prunus.gguf.writer", "_write", "after"),
)
"""Where a process kills itself: module, name in it, and whether before the call or after it."""
TIMES = {"seconds", "peak_memory_bytes", "tokens_per_second", "efficiency", "seal", "files", "hardware"}
SHOWN = ("report.html", "README.md")


def main() -> None:
    """Run the campaign."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=30, help="kills, at least; half of them at named functions")
    options.add_argument("--in-a-row", type=int, default=4, help="kills before a run may finish")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, required=True)
    asked = options.parse_args()
    with TemporaryDirectory() as place:
        found = campaign(Path(place), asked.kills, asked.in_a_row, random.Random(asked.seed))
    found = {"hardware": hardware(), "threads": os.environ.get("OMP_NUM_THREADS"), "versions": versions(), **found}
    asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: found[key] for key in ("kills", "finished", "identical")}))


def campaign(place: Path, kills: int, in_a_row: int, draw: random.Random) -> dict[str, Any]:
    """Kill until there were enough, and compare whatever finishes."""
    start = time.monotonic()
    reference = run(place / "reference")
    length = time.monotonic() - start
    where: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    named = [NAMED[i % len(NAMED)] for i in range((kills + 1) // 2)]
    plans: list[list[Target | None]] = [list(some) for some in chunks(named, in_a_row)]
    while plans or len(where) < kills:
        folder = place / f"run-{len(runs)}"
        plan = plans.pop(0) if plans else [None] * in_a_row
        killed = [one for target in plan if (one := kill(folder, target, length, draw))]
        differing = differences(reference, run(folder))
        where += killed
        runs.append({"kills": len(killed), "differing": differing})
        print(f"{len(where)} of {kills} kills: {[one['at'] for one in killed]} {differing}", flush=True)
    return {
        "seconds_of_an_undisturbed_run": round(length, 1),
        "kills": len(where),
        "finished": len(runs),
        "identical": sum(not one["differing"] for one in runs),
        "runs": runs,
        "where": where,
    }


def kill(folder: Path, target: Target | None, length: float, draw: random.Random) -> dict[str, Any] | None:
    """Start the run, or go on with it, and kill it; None where it came to its end first."""
    wait = None if target else draw.uniform(0.1, 0.6) * length
    process = started(folder, target)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != -signal.SIGKILL:
        assert process.returncode == 0, f"the run failed with {process.returncode}"
        return None
    text = "/".join(target) if target else "random"
    partial = sorted(path.name.rpartition("-")[0] for path in folder.rglob("*.partial"))
    return {"at": text, "after_seconds": wait, "step": partial}


def run(folder: Path) -> Path:
    """Do the run to its end."""
    process = started(folder, None)
    if process.wait():
        raise RuntimeError(f"{folder}: a run that nobody killed failed with {process.returncode}")
    assert not list(folder.rglob("*.partial")), "a folder of unfinished work was left behind"
    return folder / "run"


def started(folder: Path, target: Target | None) -> subprocess.Popen[bytes]:
    """The run in a process group of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False), encoding="utf-8")
    command = [sys.executable, __file__, "child", *(target or ("", "", ""))]
    log = (folder / "log").open("ab")
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def child(module: str, name: str, when: str) -> int:
    """The run, in a process that kills itself at a named function."""
    from prunus.cli.main import main as prunus

    if module:
        owner: Any = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, last)

        def deadly(*arguments: Any, **settings: Any) -> Any:
            if when == "after":
                original(*arguments, **settings)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, last, deadly)
    return prunus(["run", "recipe.yaml", "--out", "run"])


def differences(one: Path, other: Path) -> list[str]:
    """The files that are not alike in two runs."""
    files = [{file.relative_to(root) for file in root.rglob("*") if file.is_file()} for root in (one, other)]
    names = {name for name in files[0] | files[1] if name.name not in SHOWN and name.suffix != ".lock"}
    names = {name for name in names if ".verified" not in name.parts}
    lone = [str(name) for name in names if name not in files[0] or name not in files[1]]
    both = [name for name in names if str(name) not in lone]
    return sorted(lone + [str(name) for name in both if content(one / name) != content(other / name)])


def content(file: Path) -> Any:
    """What must be alike."""
    if file.suffix == ".json":
        return timeless(json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return file.read_bytes()


def timeless(value: Any) -> Any:
    """A value without what is measured anew each time."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    """The values, some at a time."""
    return (values[first : first + size] for first in range(0, len(values), size))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        sys.exit(child(*sys.argv[2:5]))
    main()
