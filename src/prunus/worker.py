"""A process of its own for work that may end the process that it is in, or whose memory is to be told from the rest.

Questions and answers go through pipes: names of methods with their arguments, and what they return or raise.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from prunus.errors import ExportError, PrunusError

_TOLD = 400  # characters of what it said last
_Own = TypeVar("_Own", bound="Child")


class Child:
    """An object in a process of its own, for as long as the context is open.

    Args:
        module: Run as `python -m module`; it calls `answer`.
        name: What the work is on, for messages.
        arguments: What the object is made from.

    Raises:
        PrunusError: As the object's making raises.
        ExportError: The process ended on it.
    """

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        try:
            self.ask("", *arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method there; what it raises on purpose is raised here."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            pickle.dump((method, arguments), stdin)
            stdin.flush()
            found = pickle.load(stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            raise ExportError(f"{self.name}: the process that it ran in ended: {self._last_words()}") from None
        if isinstance(found, Exception):
            raise found
        return found

    def peak_bytes(self) -> int | None:
        """The most memory that the process held, mapped files included; None where the system does not tell."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        told = next((line for line in lines if "ASSERT" in line or "error" in line.lower()), "")
        return told.strip()[:_TOLD] or f"exit code {self._process.returncode}"


def answer(make: Callable[..., Any]) -> None:
    """Make the object that the first question asks for, and answer questions about it until there are no more."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no answer
    made: Any = None
    while True:
        try:
            method, arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            if method:
                found = getattr(made, method)(*arguments)
            else:
                made, found = make(*arguments), None
        except PrunusError as error:
            found = error
        pickle.dump(found, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
