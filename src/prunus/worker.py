"""An object in a child process: for work that may crash its process, or whose memory is measured separately.

Calls go through pipes: the name of a method and its arguments in one direction, what it returns or raises in the other.
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

_SHOWN = 400  # the most characters of the child's last message in an error
_Self = TypeVar("_Self", bound="Child")


class Child:
    """An object in a child process, while the context is open.

    Args:
        module: Run as `python -m module`; it calls `serve`.
        name: The file or model that the work is on, for messages.
        arguments: Arguments of the object's constructor.

    Raises:
        PrunusError: As the constructor raises.
        ExportError: The process ended in the constructor.
    """

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        try:
            self.call("", *arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; a `PrunusError` that it raises is raised here."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            pickle.dump((method, arguments), stdin)
            stdin.flush()
            result = pickle.load(stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            raise ExportError(f"{self.name}: its process ended unexpectedly: {self._last_words()}") from None
        if isinstance(result, Exception):
            raise result
        return result

    def peak_bytes(self) -> int | None:
        """Peak resident memory of the process in bytes, mapped files included; None if it is not reported."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def _last_words(self) -> str:
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        message = next((line for line in lines if "ASSERT" in line or "error" in line.lower()), "")
        return message.strip()[:_SHOWN] or f"exit code {self._process.returncode}"


def serve(make: Callable[..., Any]) -> None:
    """Run in the child: make the object on the first call, then execute calls until the pipe closes."""
    calls, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other output must not get between the results
    served: Any = None
    while True:
        try:
            method, arguments = pickle.load(calls)
        except EOFError:
            return
        try:
            if method:
                result = getattr(served, method)(*arguments)
            else:
                served, result = make(*arguments), None
        except PrunusError as error:
            result = error
        pickle.dump(result, results, protocol=pickle.HIGHEST_PROTOCOL)
        results.flush()
