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
from typing import IO, TYPE_CHECKING, Any

from prunus import processes
from prunus.console import Console, duration
from prunus.errors import ArtifactError, RecipeError
from prunus.pipeline.machine import hardware, peak_memory, reset_peak_memory, versions
from prunus.pipeline.steps import Step
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig

if TYPE_CHECKING:
    from prunus.pipeline.plan import Plan  # which searches, and so carries out steps

MANIFEST = "run.json"


def run_plan(plan: Plan, console: Console) -> Plan:
    """Do every step of `plan` that is not done, and then those that only its search could tell.

    Returns:
        The plan as it was in the end.

    Raises:
        RecipeError: The device is not there, or several processes are to do what one does.
        ArtifactError: Another run is at work in the same folder, or a result there is damaged.
        PrunusError: As the steps raise; what was finished before stays finished.
    """
    for step in plan.steps:
        _check_processes(step)
    load = importlib.import_module("prunus.models.load")  # torch comes in here, when there is work to do
    load.device_of(plan.recipe.runtime)  # a device that is not there is told before any work
    plan.root.mkdir(parents=True, exist_ok=True)
    with _alone(plan.root):
        if processes.rank() == 0:
            _write_manifest(plan)
        for number, step in enumerate(plan.steps, start=1):
            console.heading(f"{number}/{len(plan.steps)} {step.name}", f"{step.artifact.path.name}  {step.state()}")
            execute(step, plan.recipe.runtime, console)
    return plan if plan.rest is None else run_plan(plan.rest(), console)


def execute(step: Step, runtime: Runtime, console: Console) -> Path:
    """Do one step unless it is done; its inputs must be. Returns the folder of the result.

    One that a judge left holes in is taken up again, and the judge is asked for what it has not said.

    Of several processes the first does it, and the others help where the room has `PARALLEL`, or wait.

    Raises:
        PrunusError: As the step raises.
    """
    _check_processes(step)
    artifact = step.artifact
    holes = artifact.is_done() and artifact.has_holes()
    done = artifact.is_done() and not holes
    room = importlib.import_module(f"prunus.{step.kind}.step") if not done else None
    processes.join()
    processes.wait()  # until all have seen whether it is done
    if room is None:
        return artifact.path
    if processes.rank() == 0:
        if holes:
            artifact.reopen()
        artifact.begin()
    processes.wait()
    if processes.rank() == 0:
        _do(step, room, runtime, console)
    elif getattr(room, "PARALLEL", False):
        room.run(step.config, room.Inputs(**_given(step)), artifact.partial, runtime, console)
    processes.wait()
    artifact.__dict__.pop("record", None)  # what the others saw of it is old
    return artifact.path


def _check_processes(step: Step) -> None:
    """Refuse a batch that the processes cannot share."""
    config = step.config
    if isinstance(config, OptimizerConfig) and config.batch_size % processes.count() and not step.artifact.is_done():
        raise RecipeError(
            f"{step.name}: batch_size: {config.batch_size} sequences cannot be shared by {processes.count()} processes "
            "alike; allowed: a multiple of their number"
        )


def _given(step: Step) -> dict[str, Any]:
    """The inputs of a step as its room takes them: paths, mostly."""
    return {name: given.value for name, given in step.inputs.items()}


def _do(step: Step, room: Any, runtime: Runtime, console: Console) -> None:
    """Do a step whose folder has been begun, and record it."""
    artifact, out = step.artifact, step.artifact.partial
    reset_peak_memory()
    start = time.monotonic()
    try:
        metrics = room.run(step.config, room.Inputs(**_given(step)), out, runtime, console)
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
            "config": step.config.recorded(places=False),
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


def _write_manifest(plan: Plan) -> None:
    """Say which folders belong to the run as it is now; the report reads it."""
    steps = [
        {"subject": step.subject, "label": step.label, "kind": step.kind, "folder": _relative(step, plan.root)}
        for step in plan.steps
    ]
    manifest: dict[str, Any] = {
        "name": plan.recipe.recorded()["name"],
        "recipe": plan.recipe.recorded(),
        "teacher": plan.teacher.dimensions(),
        "steps": steps,
    }
    (plan.root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _relative(step: Step, root: Path) -> str:
    return str(step.artifact.path.relative_to(root))


@contextmanager
def _alone(root: Path) -> Iterator[IO[str]]:
    """Hold the run's folder for as long as the context is open; the system lets go of it when a process dies.

    Of several processes the first holds it for all.
    """
    if processes.rank():
        with (root / ".lock").open("a") as handle:
            yield handle
        return
    with (root / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArtifactError(f"{root}: another run is at work here; wait for it, or choose another --out") from None
        yield handle
