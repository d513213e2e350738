"""Writing a stream of tokens: whoever has documents as ids appends them, and the borders are written at the end."""

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
    """The stream as far as it is written.

    Attributes:
        file: Where the ids go.
        vocab_size: Ids are less than this; up to 2¹⁶ they take 16 bits, else 32.
        prefix: What the tokenizer puts at the start of every text; recorded, not written.
        opening: What held-out documents are predicted from; see `Tokens.opening`.
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
        """The type of an id on disk."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def write(self, text: str, ids: Sequence[int], answers: Sequence[tuple[int, int]] | None = None) -> None:
        """Append a document, given as text and as ids, of which some stretches (start, end) answer somebody; or all."""
        for start, end in [(0, len(ids))] if answers is None else answers:
            if self.answers and self.answers[-1] == self.tokens + start:
                self.answers[-1] = self.tokens + end
            else:
                self.answers.extend((self.tokens + start, self.tokens + end))
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.sizes.append(len(text.encode()))
        self.tokens += len(ids)

    def keep(self, folder: Path, place: Any) -> None:
        """Write down how far the stream is, with what says where the next document comes from (JSON takes it)."""
        self.file.flush()
        os.fsync(self.file.fileno())  # what is said to be there must outlive a crash
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "partial.npz"
        lengths, sizes, answers = (np.asarray(getattr(self, name)) for name in _BORDERS)
        np.savez(partial, place=np.array(json.dumps(place)), lengths=lengths, sizes=sizes, answers=answers)
        sync(partial)
        os.replace(partial, folder / _STATE)
        (folder / "complete").touch()  # an unfinished step with this is gone on with, and not removed

    def go_on(self, folder: Path) -> Any:
        """Take up the stream where it was kept last, or at its beginning, and forget what was written after that.

        Returns:
            The place that was given with it, or None.
        """
        place = None
        if (folder / _STATE).is_file():
            with np.load(folder / _STATE) as state:
                place = json.loads(str(state["place"]))
                for name in _BORDERS:
                    setattr(self, name, array("q", state[name].tobytes()))
        self.tokens = sum(self.lengths)
        self.file.truncate(self.tokens * self.dtype.itemsize)
        return place

    def finish(self, out: Path) -> dict[str, Any]:
        """Write the borders beside the ids, and those of answers where not all is one.

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
