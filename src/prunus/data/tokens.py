"""Tokens: a tokenised stream on disk and its documents. Blocks and windows are the two ways of cutting it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunus.errors import ArtifactError
from prunus.files import read_object

IDS, ENDS, SIZES, FACTS = "tokens.bin", "document_ends.npy", "document_bytes.npy", "tokens.json"
ANSWERS = "answers.npy"  # only where a part of the stream is what somebody was asked for


@dataclass(frozen=True)
class Tokens:
    """A stream of token ids with its documents' borders, mapped from disk.

    Attributes:
        ids: [T], all tokens of all documents, one after the other.
        ends: [N], where each document ends in `ids`.
        sizes: [N], each document's length as UTF-8 bytes.
        answers: [A, 2], the stretches (start, end) of `ids` that answer somebody, ascending: an assistant's turns, or
            what a teacher wrote; None for text that nobody was asked for.
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
        """Map the stream that a `data` or a `generate` step wrote."""
        facts = read_object(folder / FACTS, ArtifactError)
        ids = np.memmap(folder / IDS, dtype=facts["dtype"], mode="r")
        ends = np.load(folder / ENDS)
        answers = np.load(folder / ANSWERS) if (folder / ANSWERS).is_file() else None
        prefix, opening = (tuple(facts.get(name, ())) for name in ("prefix", "opening"))
        return cls(ids, ends, np.load(folder / SIZES), answers, prefix, opening or prefix)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each document begins in `ids`, [N]."""
        return np.concatenate([np.zeros(1, dtype=self.ends.dtype), self.ends[:-1]])

    def positions(self, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in its document each of some tokens is, counted from where the document or `first` is, and in which."""
        at = np.arange(first, first + length)
        documents = np.searchsorted(self.ends, at, side="right")
        return at - np.maximum(self.starts[documents], first), documents

    def counted(self, first: int, length: int) -> np.ndarray:
        """Which of some tokens answer somebody, [length]; all of them where nobody was asked."""
        if self.answers is None:
            return np.ones(length, dtype=bool)
        inside = np.searchsorted(self.answers.ravel(), np.arange(first, first + length), side="right")
        return inside % 2 == 1  # behind a start, and not yet behind its end


def schedule(blocks: int, count: int, seed: int) -> np.ndarray:
    """The order of training: `count` block numbers, each epoch a new permutation of all, [count].

    The order is a function of the seed alone, so that a resumed run knows where it was from its step number.
    """
    epochs = -(-count // blocks)
    order = [np.random.default_rng([seed, epoch]).permutation(blocks) for epoch in range(epochs)]
    return np.concatenate(order)[:count]
