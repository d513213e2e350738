"""Carrying out a plan: skip what is done, take up what is not, and record each result as it is finished."""

from __future__ import annotations

import gc
import importlib
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.console import Console, duration
from prunus.errors import ArtifactError, PlaceError, PrunusError, RecipeError
from prunus.files import replace_json
from prunus.graph.integrity import check_artifact
from prunus.graph.locks import lock_result, lock_run
from prunus.graph.steps import Step
from prunus.pipeline.failures import Failures, ends_the_run, storage_problem
from prunus.pipeline.machine import hardware, peak_memory, reset_peak_memory, versions
from prunus.pipeline.planned import Plan
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig

MANIFEST = "run.json"


def run_plan(plan: Plan, console: Console) -> Plan:
    """Do every step of `plan` that is not done, and then those that only its search could tell.

    A student's step that fails takes those along that need it; the others are done, and the failure is raised then.

    Returns:
        The plan as it was in the end.

    Raises:
        RecipeError: The device is not there, or several processes are to do what one does.
        ArtifactError: Another run is at work in the same folder, or a result there is damaged.
        RunError: Steps of students failed; all others are finished.
        PrunusError: As a step raises that others are made from; what was finished before stays finished.
    """
    failures = Failures()
    load = importlib.import_module("prunus.models.load")  # torch comes in here, when there is work to do
    load.device_of(plan.recipe.runtime)  # a device that is not there is told before any work
    for step in plan.steps:
        _check_processes(step)
    plan.root.mkdir(parents=True, exist_ok=True)
    with lock_run(plan.root) if distributed.rank() == 0 else nullcontext():
        _carry_out(plan, failures, console)
        while plan.rest is not None:
            plan = plan.rest()
            _carry_out(plan, failures, console)
    failures.raise_any()
    return plan


def _carry_out(plan: Plan, failures: Failures, console: Console) -> None:
    """Do the steps of a plan, but for those that need one that failed."""
    _write_manifest(plan, failures)
    for number, step in enumerate(plan.steps, start=1):
        title = f"{number}/{len(plan.steps)} {step.name}"
        cause = failures.cause(step)
        if cause is not None:
            console.heading(title, f"skipped: `{cause}` failed")
            continue
        try:
            _check_processes(step)
            console.heading(title, f"{step.artifact.path.name}  {step.state()}")
            execute(step, plan.recipe.runtime, console)
        except PrunusError as error:
            failures.note(step, error)
            _write_manifest(plan, failures)
            if ends_the_run(step, plan.steps, plan.rest is not None, error):
                raise
            console.warn(f"{step.name} failed: {error}; the steps that do not need it are done all the same")


def execute(step: Step, runtime: Runtime, console: Console) -> Path:
    """Do one step unless it is done; its inputs must be. Returns the folder of the result.

    One that a judge left holes in is taken up again, and the judge is asked for what it has not said. What a step
    reads is held against its checksums before.

    Of several processes the first does it, and the others help where the room has `PARALLEL`, or wait. Where it fails
    in one, it fails in all.

    Raises:
        PrunusError: As the step raises.
    """
    _check_processes(step)
    distributed.join()
    artifact = step.artifact
    with ExitStack() as stack:
        first = distributed.rank() == 0
        error = _begin(step, stack, console) if first else None
        _meet(step, error)
        if artifact.is_complete():
            return artifact.path
        start = time.monotonic()
        metrics, error = _work(step, runtime, console)
        _meet(step, error)  # nobody reads in the folder any more
        seconds = time.monotonic() - start
        _meet(step, _finish(step, metrics, seconds) if first else None)
    gc.collect()
    console.say(f"done in {duration(seconds)}")
    return artifact.path


def _begin(step: Step, stack: ExitStack, console: Console) -> PrunusError | None:
    """Take up what an earlier run left, check what is read, and make the folder to work in where there is work.

    Returns why that cannot be done, if so. The lock is held until the stack is closed.
    """
    artifact = step.artifact
    try:
        if step.place is None and not artifact.is_complete():  # else its place is held by who chose it
            stack.enter_context(lock_result(artifact.path, console))
        artifact.recover()
        if artifact.is_done():
            check_artifact(artifact.path, console)
        if artifact.is_complete():
            return None
        for folder in _read_by(step):
            check_artifact(folder, console)
        if artifact.is_done():
            artifact.reopen()
        else:
            artifact.begin()
    except PrunusError as error:
        return error
    return None


def _meet(step: Step, error: PrunusError | None) -> None:
    """Wait for the other processes, and fail if any did.

    Raises:
        PrunusError: The error of this process, or what another's was.
    """
    try:
        text = distributed.outcome(str(error) if error is not None else None)
    except TimeoutError:
        assert error is not None  # it failed here
        raise error from None
    distributed.wait()
    if error is not None:
        raise error
    if text is not None:
        raise PrunusError(text)


def _check_processes(step: Step) -> None:
    """Refuse a batch that the processes cannot share."""
    config = step.config
    if isinstance(config, OptimizerConfig) and config.batch_size % distributed.count() and not step.artifact.is_done():
        raise RecipeError(
            f"{step.name}: batch_size: {config.batch_size} sequences cannot be shared by {distributed.count()} "
            "processes alike; allowed: a multiple of their number"
        )


def _given(step: Step) -> dict[str, Any]:
    """The inputs of a step as its room takes them: paths, mostly."""
    return {name: given.value for name, given in step.inputs.items()}


def _read_by(step: Step) -> Iterator[Path]:
    """The folders that a step reads, which may be artifacts of this run or of another."""
    return (value for value in _given(step).values() if isinstance(value, Path))


def _work(step: Step, runtime: Runtime, console: Console) -> tuple[dict[str, float], PrunusError | None]:
    """This process's share of a step whose folder has been begun: its figures, or why it failed."""
    room = importlib.import_module(f"{step.config.room()}.step")
    artifact, first = step.artifact, distributed.rank() == 0
    if not first and not getattr(room, "PARALLEL", False):
        return {}, None
    reset_peak_memory()
    try:
        return room.run(step.config, room.Inputs(**_given(step)), artifact.partial, runtime, console), None
    except Exception as error:
        if first:
            artifact.abandon()
        if isinstance(error, PrunusError):
            return {}, error
        if problem := storage_problem(error, artifact.partial):
            return {}, _unwritable(step, problem, error)
        raise


def _unwritable(step: Step, problem: str, error: Exception) -> PlaceError:
    found = PlaceError(f"{step.name}: {step.artifact.partial}: {problem}")
    found.__cause__ = error
    return found


def _finish(step: Step, metrics: dict[str, float], seconds: float) -> PrunusError | None:
    """Record what a step made, and put it in place. Returns why that cannot be done, if so; what was made is kept."""
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            return ArtifactError(f"{step.name}: {name} is {value}, expected a finite number; nothing is recorded")
    try:
        step.artifact.finish(
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
    except PrunusError as error:
        return error
    except OSError as error:
        return _unwritable(step, error.strerror or str(error), error)
    return None


def _write_manifest(plan: Plan, failures: Failures) -> None:
    """Say which folders belong to the run as it is now, and which steps failed; the report reads it."""
    if distributed.rank():
        return
    steps = [
        {"subject": step.subject, "label": step.label, "kind": step.kind, "folder": _relative(step, plan.root)}
        for step in plan.steps
    ]
    manifest: dict[str, Any] = {
        "name": plan.recipe.recorded()["name"],
        "recipe": plan.recipe.recorded(),
        "teacher": plan.teacher.dimensions(),
        "origin": dict(plan.origin),
        "steps": steps,
        "failures": failures.rows(),
    }
    replace_json(plan.root / MANIFEST, manifest)


def _relative(step: Step, root: Path) -> str:
    return str(step.artifact.path.relative_to(root))
