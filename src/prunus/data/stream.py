"""Writing a stream of tokens: documents are appended as ids, and their borders are written at the end."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.data.tokens import ANSWERS, ENDS, FACTS, SIZES
from prunus.files import replace_json, sync

_BORDERS = ("lengths", "sizes", "answers")
_STATE = "state.npz"


def _numbers() -> array[int]:
    return array("q")  # 8 bytes each: there may be many millions


@dataclass
class Stream:
    """A stream while it is written.

    Attributes:
        file: The file of ids.
        vocab_size: Ids are less than this; up to 2¹⁶ they take 16 bits, else 32.
        prefix: The ids that the tokenizer puts at the start of every text; recorded, not written to the file.
        opening: The ids that held-out documents are predicted from; see `Tokens.opening`.
        tokens: Number of tokens so far.
        lengths: Tokens of each document.
        sizes: UTF-8 bytes of each document.
        answers: Starts and ends of the answers' spans, alternating.
    """

    file: IO[bytes]
    vocab_size: int
    prefix: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()
    tokens: int = 0
    lengths: array[int] = field(default_factory=_numbers)
    sizes: array[int] = field(default_factory=_numbers)
    answers: array[int] = field(default_factory=_numbers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of ids on disk."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def write(self, text: str, ids: Sequence[int], answers: Sequence[tuple[int, int]] | None = None) -> None:
        """Append a document as text and ids. `answers` are the spans (start, end) that are answers; None: all of it."""
        for start, end in [(0, len(ids))] if answers is None else answers:
            if self.answers and self.answers[-1] == self.tokens + start:
                self.answers[-1] = self.tokens + end
            else:
                self.answers.extend((self.tokens + start, self.tokens + end))
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.sizes.append(len(text.encode()))
        self.tokens += len(ids)

    def checkpoint(self, folder: Path, source: Any) -> None:
        """Save the state of the stream together with the state of its source, which is JSON."""
        self.file.flush()
        os.fsync(self.file.fileno())  # the checkpoint must not refer to ids that a crash loses
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "partial.npz"
        lengths, sizes, answers = (np.asarray(getattr(self, name)) for name in _BORDERS)
        np.savez(partial, place=np.array(json.dumps(source)), lengths=lengths, sizes=sizes, answers=answers)
        sync(partial)
        os.replace(partial, folder / _STATE)
        (folder / "complete").touch()  # a failed step that has this file is kept and resumed

    def resume(self, folder: Path) -> Any:
        """Continue from the last checkpoint, or from the beginning, and drop what was written after it.

        Returns:
            The state of the source that was saved with it, or None.
        """
        source = None
        if (folder / _STATE).is_file():
            with np.load(folder / _STATE) as state:
                source = json.loads(str(state["place"]))
                for name in _BORDERS:
                    setattr(self, name, array("q", state[name].tobytes()))
        self.tokens = sum(self.lengths)
        self.file.truncate(self.tokens * self.dtype.itemsize)
        return source

    def finish(self, out: Path) -> dict[str, Any]:
        """Write the borders of the documents, and of the answers unless everything is one answer.

        Returns:
            The number of documents, tokens and bytes.
        """
        np.save(out / ENDS, np.cumsum(self.lengths, dtype=np.int64))
        np.save(out / SIZES, np.asarray(self.sizes, dtype=np.int64))
        if self.answers[:3].tolist() != [0, self.tokens]:
            np.save(out / ANSWERS, np.asarray(self.answers, dtype=np.int64).reshape(-1, 2))
        facts: dict[str, Any] = {"documents": len(self.sizes), "tokens": self.tokens, "bytes": sum(self.sizes)}
        starts = {"prefix": list(self.prefix), "opening": list(self.opening)}
        replace_json(out / FACTS, {**facts, "dtype": self.dtype.name, **starts})
        return facts
