"""Tokens: a tokenised stream on disk, its documents, and the two ways of cutting it: blocks and windows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunus.errors import DataError

IDS, ENDS, SIZES, FACTS = "tokens.bin", "document_ends.npy", "document_bytes.npy", "tokens.json"
PROMPTS = "document_prompts.npy"  # only where documents begin with a prompt


@dataclass(frozen=True)
class Tokens:
    """A stream of token ids with its documents' borders, mapped from disk.

    Attributes:
        ids: [T], all tokens of all documents, one after the other.
        ends: [N], where each document ends in `ids`.
        sizes: [N], each document's length as UTF-8 bytes.
        prompts: [N], how many of each document's first tokens are prompt; 0 for text that nobody was asked for.
    """

    ids: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    prompts: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Tokens:
        """Map the stream that a `data` or a `generate` step wrote."""
        facts = json.loads((folder / FACTS).read_text())
        ids = np.memmap(folder / IDS, dtype=facts["dtype"], mode="r")
        ends = np.load(folder / ENDS)
        prompts = np.load(folder / PROMPTS) if (folder / PROMPTS).is_file() else np.zeros_like(ends)
        return cls(ids, ends, np.load(folder / SIZES), prompts)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each document begins in `ids`, [N]."""
        return np.concatenate([np.zeros(1, dtype=self.ends.dtype), self.ends[:-1]])

    def blocks(self, length: int) -> np.ndarray:
        """The stream in consecutive blocks, [T // length, length]; what does not fill the last one is dropped.

        Raises:
            DataError: There is not one block.
        """
        count = len(self.ids) // length
        if not count:
            raise DataError(f"the text is too short: {len(self.ids)} tokens do not fill one sequence of {length}")
        return self.ids[: count * length].reshape(count, length)

    def positions(self, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in its document each of some tokens is, counted from where the document or `first` is, and in which."""
        at = np.arange(first, first + length)
        documents = np.searchsorted(self.ends, at, side="right")
        return at - np.maximum(self.starts[documents], first), documents

    def draw(self, count: int, length: int, seed: int) -> np.ndarray:
        """A calibration set: `count` blocks drawn at random, or all in random order if there are fewer, [n, length].

        Raises:
            DataError: There is not one block.
        """
        blocks = self.blocks(length)
        return blocks[np.random.default_rng(seed).permutation(len(blocks))[:count]].astype(np.int64)

    def windows(self, length: int) -> Iterator[tuple[int, int, float]]:
        """Stretches (start, end, bytes) of at most `length` tokens, none across two documents.

        A document's bytes are shared out by tokens. Stretches of one token predict nothing and are left out.
        """
        documents = zip(self.starts.tolist(), self.ends.tolist(), self.sizes.tolist(), strict=True)
        for start, end, size in documents:
            for left in range(start, end, length):
                right = min(left + length, end)
                if right - left > 1:
                    yield left, right, size * (right - left) / (end - start)


def schedule(blocks: int, count: int, seed: int) -> np.ndarray:
    """The order of training: `count` block numbers, each epoch a new permutation of all, [count].

    The order is a function of the seed alone, so that a resumed run knows where it was from its step number.
    """
    epochs = -(-count // blocks)
    order = [np.random.default_rng([seed, epoch]).permutation(blocks) for epoch in range(epochs)]
    return np.concatenate(order)[:count]
