"""Carrying out a plan: skip what is done, take up what is not, and record each result as it is finished."""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from prunus.console import Console, duration
from prunus.errors import ArtifactError
from prunus.pipeline.machine import hardware, peak_memory, reset_peak_memory, versions
from prunus.pipeline.plan import Given, Plan, Step
from prunus.runtime import Runtime

MANIFEST = "run.json"


def run_plan(plan: Plan, console: Console) -> None:
    """Do every step of `plan` that is not done.

    Raises:
        RecipeError: The device is not there.
        ArtifactError: Another run is at work in the same folder, or a result there is damaged.
        PrunusError: As the steps raise; what was finished before stays finished.
    """
    load = importlib.import_module("prunus.models.load")  # torch comes in here, when there is work to do
    load.device_of(plan.recipe.runtime)  # a device that is not there is told before any work
    plan.root.mkdir(parents=True, exist_ok=True)
    with _alone(plan.root):
        _write_manifest(plan)
        for number, step in enumerate(plan.steps, start=1):
            console.heading(f"{number}/{len(plan.steps)} {step.name}", f"{step.artifact.path.name}  {step.state()}")
            execute(step, plan.recipe.runtime, console)


def execute(step: Step, runtime: Runtime, console: Console) -> Path:
    """Do one step unless it is done; its inputs must be. Returns the folder of the result.

    Raises:
        PrunusError: As the step raises.
    """
    artifact = step.artifact
    if artifact.is_done():
        return artifact.path
    room = importlib.import_module(f"prunus.{step.kind}.step")
    inputs = {
        name: given.value if isinstance(given, Given) else given.artifact.path for name, given in step.inputs.items()
    }
    out = artifact.begin()
    reset_peak_memory()
    start = time.monotonic()
    try:
        metrics = room.run(step.config, room.Inputs(**inputs), out, runtime, console)
    except OSError as error:
        artifact.abandon()
        raise ArtifactError(f"{step.name}: {out}: {error.strerror or error}") from error
    except Exception:
        artifact.abandon()
        raise
    seconds = time.monotonic() - start
    artifact.finish(
        {
            "kind": step.kind,
            "subject": step.subject,
            "label": step.label,
            "config": step.config.identity(),
            "inputs": {name: given.fingerprint for name, given in step.inputs.items()},
            "seconds": round(seconds, 2),
            "peak_memory_bytes": peak_memory(),
            "metrics": metrics,
            "versions": versions(),
            "hardware": hardware(),
        }
    )
    gc.collect()
    console.say(f"done in {duration(seconds)}")
    return artifact.path


def _write_manifest(plan: Plan) -> None:
    """Say which folders belong to the run as it is now; the report reads it."""
    steps = [
        {"subject": step.subject, "label": step.label, "kind": step.kind, "folder": _relative(step, plan.root)}
        for step in plan.steps
    ]
    manifest: dict[str, Any] = {
        "name": plan.recipe.name,
        "recipe": plan.recipe.model_dump(mode="json"),
        "teacher": plan.teacher.dimensions(),
        "steps": steps,
    }
    (plan.root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _relative(step: Step, root: Path) -> str:
    return str(step.artifact.path.relative_to(root))


@contextmanager
def _alone(root: Path) -> Iterator[IO[str]]:
    """Hold the run's folder for as long as the context is open; the system lets go of it when a process dies."""
    with (root / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArtifactError(f"{root}: another run is at work here; wait for it, or choose another --out") from None
        yield handle
