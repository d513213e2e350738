"""Writing a stream of tokens: whoever has documents as ids appends them, and the borders are written at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.data.tokens import ANSWERS, ENDS, FACTS, SIZES


@dataclass
class Stream:
    """The stream as far as it is written.

    Attributes:
        file: Where the ids go.
        vocab_size: Ids are less than this; up to 2¹⁶ they take 16 bits, else 32.
    """

    file: IO[bytes]
    vocab_size: int
    tokens: int = 0
    lengths: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an id on disk."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def write(self, text: str, ids: Sequence[int], answers: Sequence[tuple[int, int]] | None = None) -> None:
        """Append a document, given as text and as ids, of which some stretches (start, end) answer somebody; or all."""
        for first, last in [(0, len(ids))] if answers is None else answers:
            goes_on = self.answers and self.answers[-1][1] == self.tokens + first
            start = self.answers.pop()[0] if goes_on else self.tokens + first
            self.answers.append((start, self.tokens + last))
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.sizes.append(len(text.encode()))
        self.tokens += len(ids)

    def finish(self, out: Path) -> dict[str, Any]:
        """Write the borders beside the ids, and those of answers where not all is one.

        Returns:
            The number of documents, tokens and bytes.
        """
        np.save(out / ENDS, np.cumsum(self.lengths, dtype=np.int64))
        np.save(out / SIZES, np.asarray(self.sizes, dtype=np.int64))
        if self.answers != [(0, self.tokens)]:
            np.save(out / ANSWERS, np.asarray(self.answers, dtype=np.int64).reshape(-1, 2))
        facts: dict[str, Any] = {"documents": len(self.sizes), "tokens": self.tokens, "bytes": sum(self.sizes)}
        (out / FACTS).write_text(json.dumps({**facts, "dtype": self.dtype.name}, indent=2) + "\n")
        return facts
