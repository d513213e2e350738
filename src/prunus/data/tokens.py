"""A tokenised stream on disk and its documents. `Blocks` and `windows` are the two ways to split it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunus.errors import ArtifactError
from prunus.files import read_object

IDS, ENDS, SIZES, FACTS = "tokens.bin", "document_ends.npy", "document_bytes.npy", "tokens.json"
ANSWERS = "answers.npy"  # only if a part of the stream is prompts


@dataclass(frozen=True)
class Tokens:
    """A stream of token ids with its documents' borders, mapped from disk.

    Attributes:
        ids: [T], the tokens of all documents, concatenated.
        ends: [N], the end of each document in `ids`.
        sizes: [N], each document's length in UTF-8 bytes.
        answers: [A, 2], the spans (start, end) of `ids` that are answers, ascending: the assistant's turns, or text
            that a teacher generated; None for plain text.
        prefix: The ids that the tokenizer puts at the start of every text, such as (2,) for Gemma 3.
        opening: The ids that a held-out document is predicted from: the prefix; else BOS, else EOS, if there is one.
    """

    ids: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    answers: np.ndarray | None = None
    prefix: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> Tokens:
        """Map the stream in a step's folder."""
        facts = read_object(folder / FACTS, ArtifactError)
        ids = np.memmap(folder / IDS, dtype=facts["dtype"], mode="r")
        ends = np.load(folder / ENDS)
        answers = np.load(folder / ANSWERS) if (folder / ANSWERS).is_file() else None
        prefix, opening = (tuple(facts.get(name, ())) for name in ("prefix", "opening"))
        return cls(ids, ends, np.load(folder / SIZES), answers, prefix, opening or prefix)

    @cached_property
    def starts(self) -> np.ndarray:
        """The start of each document in `ids`, [N]."""
        return np.concatenate([np.zeros(1, dtype=self.ends.dtype), self.ends[:-1]])

    def positions(self, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and documents of `length` tokens from `first` on, [length] each.

        A token's position counts from the start of its document, or from `first` if that is later.
        """
        at = np.arange(first, first + length)
        documents = np.searchsorted(self.ends, at, side="right")
        return at - np.maximum(self.starts[documents], first), documents

    def loss_mask(self, first: int, length: int) -> np.ndarray:
        """Which of `length` tokens from `first` on belong to answers, [length]; all of them in plain text."""
        if self.answers is None:
            return np.ones(length, dtype=bool)
        inside = np.searchsorted(self.answers.ravel(), np.arange(first, first + length), side="right")
        return inside % 2 == 1  # after a start and before its end


def schedule(blocks: int, count: int, seed: int) -> np.ndarray:
    """The order of training: `count` block numbers, each epoch a new permutation of all, [count].

    The order depends only on the seed, so that a resumed run needs only its step number.
    """
    epochs = -(-count // blocks)
    order = [np.random.default_rng([seed, epoch]).permutation(blocks) for epoch in range(epochs)]
    return np.concatenate(order)[:count]
