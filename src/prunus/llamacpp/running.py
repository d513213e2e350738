"""llama.cpp in a child process: on unexpected input it aborts the process that it runs in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prunus.worker import Child, serve


class Running(Child):
    """A GGUF file in llama.cpp, like `Loaded`, but in a child process.

    Raises:
        ModelError: llama.cpp does not load it.
        RecipeError: The wheel is missing, or its version is not supported.
        ExportError: llama.cpp crashed on it.
    """

    def __init__(self, file: Path, context: int, exact: bool = True) -> None:
        super().__init__("prunus.llamacpp.running", file.name, file, context, exact)

    def logits(self, ids: Sequence[int] | np.ndarray, last: int = 0, start: int = 0) -> np.ndarray:
        """The logits after each of `ids`, from position `start` on, or the `last` of them: [S, V] in float32."""
        return self.call("logits", [int(i) for i in ids], start, last)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Greedy decoding of `count` tokens after `ids`."""
        return self.call("greedy", list(ids), count)

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """A text's tokens; with `special`, including the tokens that are added before and after it."""
        return self.call("tokenize", text, special)

    def ends(self) -> list[int]:
        """The tokens at which llama.cpp ends an answer."""
        return self.call("ends")


if __name__ == "__main__":
    from prunus.llamacpp.loaded import Loaded

    serve(Loaded)
