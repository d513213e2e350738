"""llama.cpp in a process of its own: where it finds something that it does not expect it ends the process it is in.

Asked by the names of `Loaded`'s methods; questions and answers go through pipes.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from prunus.errors import ExportError, PrunusError

_TOLD = 400  # characters of what it said last


class Running:
    """A GGUF file in llama.cpp, for as long as the context is open. As `Loaded`, elsewhere.

    Raises:
        ModelError: llama.cpp does not load it.
        RecipeError: The wheel is missing, or is not one that is understood.
        ExportError: llama.cpp ended on it.
    """

    def __init__(self, file: Path, context: int) -> None:
        self.file = file
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        command = [sys.executable, "-m", "prunus.export.running"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        try:
            self._ask("open", str(file), context)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def logits(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The logits after each of `ids`: [S, V] in float32."""
        return self._ask("logits", [int(i) for i in ids])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest tokens after `ids`, one after the other."""
        return self._ask("greedy", list(ids), count)

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """A text's tokens, with what is put before and behind it where `special`."""
        return self._ask("tokenize", text, special)

    def _ask(self, name: str, *arguments: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            pickle.dump((name, arguments), stdin)
            stdin.flush()
            answer = pickle.load(stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            raise ExportError(f"{self.file.name}: llama.cpp ended on it: {self._last_words()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        told = next((line for line in lines if "ASSERT" in line or "error" in line.lower()), "")
        return told.strip()[:_TOLD] or f"exit code {self._process.returncode}"


def answer(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer questions about one file until there are no more."""
    from prunus.export.llamacpp import Loaded

    loaded: Loaded | None = None
    while True:
        try:
            name, arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            if name == "open":
                loaded = Loaded(Path(arguments[0]), arguments[1])
                found: Any = None
            else:
                found = getattr(loaded, name)(*arguments)
        except PrunusError as error:
            found = error
        pickle.dump(found, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever llama.cpp prints is no answer
    answer(sys.stdin.buffer, own)
