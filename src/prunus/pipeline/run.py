"""Execution of a plan: finished steps are skipped, interrupted ones resumed, and each result is recorded."""

from __future__ import annotations

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
from prunus.pipeline.machine import hardware, peak_memory, reset_peak_memory, return_memory, versions
from prunus.pipeline.planned import Plan
from prunus.pipeline.precision import mixed, settle, used
from prunus.runtime import Runtime
from prunus.training.config import OptimizerConfig

MANIFEST = "run.json"


def run_plan(plan: Plan, console: Console) -> Plan:
    """Do every step of `plan` that is not done, then the steps that are planned after its search.

    If a student's step fails, the steps that need it are skipped, the others are done, and the failure is raised at
    the end.

    Returns:
        The final plan.

    Raises:
        RecipeError: The device is missing, or the processes cannot share a batch equally.
        ArtifactError: Another run works in the same folder, or a result in it is damaged.
        RunError: Steps of students failed; all others are finished.
        PrunusError: Raised by a step that all students need; steps finished before it stay finished.
    """
    failures = Failures()
    load = importlib.import_module("prunus.models.load")  # imports torch, only when there is work
    load.device_of(plan.recipe.runtime)  # reports a missing device before any work
    runtime = settle(plan.recipe.runtime, plan.teacher, console)
    if warning := mixed(runtime, plan.steps):
        console.warn(warning)
    for step in plan.steps:
        _check_processes(step)
    plan.root.mkdir(parents=True, exist_ok=True)
    with lock_run(plan.root) if distributed.rank() == 0 else nullcontext():
        _carry_out(plan, runtime, failures, console)
        while plan.rest is not None:
            plan = plan.rest()
            _carry_out(plan, runtime, failures, console)
    failures.raise_any()
    return plan


def _carry_out(plan: Plan, runtime: Runtime, failures: Failures, console: Console) -> None:
    """Do the steps of a plan, except those that need a failed one."""
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
            execute(step, runtime, console)
        except PrunusError as error:
            failures.note(step, error)
            _write_manifest(plan, failures)
            if ends_the_run(step, plan.steps, plan.rest is not None, error):
                raise
            console.warn(f"{step.name} failed: {error}; steps that do not need it continue")


def execute(step: Step, runtime: Runtime, console: Console) -> Path:
    """Do one step unless it is done; its inputs must be done. Returns the folder of the result.

    A result in which grades of a judge are missing is reopened, and the judge is queried for the missing ones. The
    folders that a step reads are compared with their checksums first.

    Of several processes, the first does the step; the others take part if the step's module has `PARALLEL = True`, or
    wait. If it fails in one process, it fails in all.

    Raises:
        PrunusError: Raised by the step.
    """
    _check_processes(step)
    distributed.join()
    artifact = step.artifact
    with ExitStack() as stack:
        first = distributed.rank() == 0
        error = _begin(step, stack, console) if first else None
        _synchronize(step, error)
        if artifact.is_complete():
            return artifact.path
        start = time.monotonic()
        metrics, error = _work(step, runtime, console)
        _synchronize(step, error)  # after this no process reads in the folder
        seconds = time.monotonic() - start
        _synchronize(step, _finish(step, metrics, seconds, runtime) if first else None)
    return_memory()
    console.say(f"done in {duration(seconds)}")
    return artifact.path


def _begin(step: Step, stack: ExitStack, console: Console) -> PrunusError | None:
    """Recover from an earlier run, check the inputs, and make the working folder if there is work.

    Returns the error if that fails. The lock is held until the stack is closed.
    """
    artifact = step.artifact
    try:
        if step.place is None and not artifact.is_complete():  # with a `place`, the caller holds the lock
            stack.enter_context(lock_result(artifact.path, console))
        artifact.recover()
        if artifact.is_done():
            check_artifact(artifact.path, console)
        if artifact.is_complete():
            return None
        for folder in _input_folders(step):
            check_artifact(folder, console)
        if artifact.is_done():
            artifact.reopen()
        else:
            artifact.begin()
    except PrunusError as error:
        return error
    return None


def _synchronize(step: Step, error: PrunusError | None) -> None:
    """Wait for the other processes, and fail if any failed.

    Raises:
        PrunusError: The error of this process, or one with another process's message.
    """
    try:
        text = distributed.outcome(str(error) if error is not None else None)
    except TimeoutError:
        assert error is not None  # only the process that failed raises TimeoutError
        raise error from None
    distributed.wait()
    if error is not None:
        raise error
    if text is not None:
        raise PrunusError(text)


def _check_processes(step: Step) -> None:
    """Refuse a batch that the processes cannot share equally."""
    config = step.config
    if isinstance(config, OptimizerConfig) and config.batch_size % distributed.count() and not step.artifact.is_done():
        raise RecipeError(
            f"{step.name}: batch_size: {config.batch_size} sequences cannot be shared equally by "
            f"{distributed.count()} processes; allowed: a multiple of their number"
        )


def _inputs_of(step: Step) -> dict[str, Any]:
    """The fields of a step's `Inputs`: mostly paths."""
    return {name: given.value for name, given in step.inputs.items()}


def _input_folders(step: Step) -> Iterator[Path]:
    """The folders that a step reads; they may be artifacts of this run or another one."""
    return (value for value in _inputs_of(step).values() if isinstance(value, Path))


def _work(step: Step, runtime: Runtime, console: Console) -> tuple[dict[str, float], PrunusError | None]:
    """Do this process's share of a step in its working folder. Returns its metrics, or the error."""
    room = importlib.import_module(f"{step.config.room()}.step")
    artifact, first = step.artifact, distributed.rank() == 0
    if not first and not getattr(room, "PARALLEL", False):
        return {}, None
    reset_peak_memory()
    try:
        return room.run(step.config, room.Inputs(**_inputs_of(step)), artifact.partial, runtime, console), None
    except Exception as error:
        if first:
            artifact.abandon()
        if isinstance(error, PrunusError):
            return {}, error
        if problem := storage_problem(error, artifact.partial):
            return {}, _unwritable(step, problem, error)
        raise


def _unwritable(step: Step, problem: str, error: Exception) -> PlaceError:
    unwritable = PlaceError(f"{step.name}: {step.artifact.partial}: {problem}")
    unwritable.__cause__ = error
    return unwritable


def _finish(step: Step, metrics: dict[str, float], seconds: float, runtime: Runtime) -> PrunusError | None:
    """Record a step's result and rename its folder. Returns the error if that fails; the result is kept then."""
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
                "precision": used(runtime),
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
    """Write which folders belong to the run now, and which steps failed; the report reads it."""
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
