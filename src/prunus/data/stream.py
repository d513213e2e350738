"""Writing a stream of tokens: whoever has documents as ids appends them, and the borders are written at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.data.tokens import ENDS, FACTS, PROMPTS, SIZES


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
    prompts: list[int] = field(default_factory=list)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an id on disk."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def write(self, text: str, ids: Sequence[int], prompt: int = 0) -> None:
        """Append a document, given as text and as ids, of which the first `prompt` are prompt."""
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.sizes.append(len(text.encode()))
        self.prompts.append(prompt)
        self.tokens += len(ids)

    def finish(self, out: Path) -> dict[str, Any]:
        """Write the borders beside the ids, and of prompts where there are any.

        Returns:
            The number of documents, tokens and bytes.
        """
        np.save(out / ENDS, np.cumsum(self.lengths, dtype=np.int64))
        np.save(out / SIZES, np.asarray(self.sizes, dtype=np.int64))
        if any(self.prompts):
            np.save(out / PROMPTS, np.asarray(self.prompts, dtype=np.int64))
        facts: dict[str, Any] = {"documents": len(self.sizes), "tokens": self.tokens, "bytes": sum(self.sizes)}
        (out / FACTS).write_text(json.dumps({**facts, "dtype": self.dtype.name}, indent=2) + "\n")
        return facts
