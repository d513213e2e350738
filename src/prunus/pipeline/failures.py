"""Failed steps of a run: which other steps are skipped, and what is recorded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import strerror
from pathlib import Path

from prunus.errors import PlaceError, PrunusError, RunError
from prunus.graph.steps import Step

_SHARED = ("data", "teacher", "search")
"""Subjects whose steps all students depend on."""
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers write files in Rust
_TORCH_WRITER = re.compile(
    r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+|inline_container\.cc.*writ", re.DOTALL
)


@dataclass
class Failures:
    """Failed and skipped steps of a run.

    Attributes:
        messages: Name of a failed step -> error message.
        skipped: Name of a skipped step -> name of the failed step that it needs.
        failed: Fingerprint of a failed step -> its name.
    """

    messages: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, step: Step, error: PrunusError) -> None:
        """Record that a step failed."""
        self.messages[step.name] = str(error)
        self.failed[step.fingerprint] = step.name

    def cause(self, step: Step) -> str | None:
        """The failed step that a step needs or repeats, or None. If there is one, the step is recorded as skipped."""
        if step.name in self.messages:
            return step.name
        for fingerprint in (step.fingerprint, *needs(step)):
            if fingerprint in self.failed:
                self.skipped[step.name] = self.failed[fingerprint]
                return self.failed[fingerprint]
        return None

    def rows(self) -> list[dict[str, str]]:
        """The failures in the manifest's form."""
        return [{"step": step, "message": message} for step, message in self.messages.items()]

    def raise_any(self) -> None:
        """Raise if any step failed.

        Raises:
            RunError: Names every failed and every skipped step.
        """
        if not self.messages:
            return
        lines = [f"{step}: {message}" for step, message in self.messages.items()]
        lines += [f"{step}: skipped, needs `{cause}`" for step, cause in self.skipped.items()]
        count = "1 step" if len(self.messages) == 1 else f"{len(self.messages)} steps"
        raise RunError(f"{count} failed; results of the others are kept:\n  " + "\n  ".join(lines))


def ends_the_run(step: Step, steps: Sequence[Step], waiting: bool, error: PrunusError) -> bool:
    """Whether the run must stop after a step failed.

    Args:
        step: The failed step.
        steps: All steps of the plan.
        waiting: Whether more steps will be planned after these.
        error: Why it failed; a full disk always stops the run.
    """
    if isinstance(error, PlaceError):
        return True
    return step.subject in _SHARED and (waiting or any(step.fingerprint in needs(other) for other in steps))


def needs(step: Step) -> dict[str, Step]:
    """All steps that a step depends on, directly or through others, by fingerprint."""
    found: dict[str, Step] = {}
    left = [step]
    while left:
        for given in left.pop().inputs.values():
            if isinstance(given, Step) and given.fingerprint not in found:
                found[given.fingerprint] = given
                left.append(given)
    return found


def storage_problem(error: Exception, folder: Path) -> str | None:
    """Why a file could not be written, if that is what an error means; each library reports it differently."""
    if isinstance(error, OSError):
        return str(error.strerror or error)
    text = str(error)
    if found := _RUST_ERROR.search(text):
        return strerror(int(found.group(1)))
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(text):
        return f"torch could not write a file; the disk has {shutil.disk_usage(folder.parent).free:,} bytes free"
    return None
