"""Sequences of whole conversations: several packed into one, none truncated, without attention between them.

S sequence, longest in a micro-batch
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch

from prunus.data.tokens import Tokens, schedule
from prunus.errors import DataError
from prunus.training.sequences import Item, Items


class Packed(Items):
    """The sequences of a whole run, each of one conversation or more.

    Args:
        tokens: The stream; each of its documents is a conversation.
        length: The most tokens per sequence.
        batch_size: Sequences per step.
        epochs: Passes over the data.
        warmup: Fraction of the steps over which the learning rate rises.
        seed: Seed of the order.
        pack: Pack as many conversations as fit into a sequence; otherwise one each.
        documents: The conversations to use; all if not given.

    Raises:
        DataError: There are fewer sequences than one step needs.
    """

    def __init__(
        self,
        tokens: Tokens,
        length: int,
        batch_size: int,
        epochs: float,
        warmup: float,
        seed: int,
        pack: bool = True,
        documents: np.ndarray | None = None,
    ) -> None:
        self.tokens, self.batch_size, self.packs = tokens, batch_size, pack
        chosen = np.arange(len(tokens.ends)) if documents is None else documents
        sizes = (tokens.ends - tokens.starts)[chosen]
        groups = best_fit(sizes.tolist(), length) if pack else [[i] for i in range(len(sizes))]
        self.groups = [chosen[group] for group in groups]
        self.steps = count_steps(len(self.groups), batch_size, epochs)
        self.warmup_steps = int(warmup * self.steps)
        self.tokens_per_step = int(sizes.sum() / len(self.groups) * batch_size)
        self.order = schedule(len(self.groups), self.steps * batch_size, seed)
        self.step_counts: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Item:
        """One sequence, without padding.

        Returns:
            `input_ids`; `numbers`, the sequence's number; `weights`, which sum to the batch size over a step; and
            `position_ids` if sequences are packed.
        """
        number = int(self.order[index])
        parts = [self._document(document) for document in self.groups[number]]
        step = index // self.batch_size
        if step not in self.step_counts:
            members = self.order[step * self.batch_size : (step + 1) * self.batch_size]
            self.step_counts[step] = sum(self._answer_tokens(int(member)) for member in members)
        counts = np.concatenate([mask for _, mask in parts])
        item: Item = {
            "input_ids": np.concatenate([ids for ids, _ in parts]),
            "weights": counts.astype(np.float32) * np.float32(self.batch_size / max(self.step_counts[step], 1)),
            "numbers": np.asarray(number),
        }
        if self.packs:
            item["position_ids"] = np.concatenate([np.arange(len(ids)) for ids, _ in parts])
        return item

    def collate(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """A micro-batch of sequences padded to the longest, [B, S]; weights have a mean of 1 over the step."""
        length = max(len(item["input_ids"]) for item in items)
        micro_batch = {"numbers": torch.from_numpy(np.stack([item["numbers"] for item in items]))}
        micro_batch["input_ids"] = pad([item["input_ids"] for item in items], length)
        micro_batch["weights"] = pad([item["weights"] for item in items], length) * length
        if self.packs:  # padding counts as one more conversation
            micro_batch["position_ids"] = torch.stack([
                torch.cat([torch.from_numpy(item["position_ids"]), torch.arange(length - len(item["position_ids"]))])
                for item in items
            ])  # fmt: skip
        return micro_batch

    def _document(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """See the function `document`."""
        return document(self.tokens, number)

    def _answer_tokens(self, number: int) -> float:
        return float(sum(self._document(member)[1].sum() for member in self.groups[number]))


def document(tokens: Tokens, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A document's ids, and its loss mask: whether the token that each predicts is part of an answer."""
    start, end = int(tokens.starts[number]), int(tokens.ends[number])
    mask = tokens.loss_mask(start, end - start)
    return tokens.ids[start:end].astype(np.int64), np.append(mask[1:], False)  # the last predicts no token


def pad(rows: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Rows padded on the right with zeros, [B, length]."""
    padded = np.zeros((len(rows), length), dtype=rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def count_steps(items: int, batch_size: int, epochs: float) -> int:
    """The number of optimiser steps in `epochs` epochs.

    Raises:
        DataError: There are fewer items than one step needs.
    """
    if items < batch_size:
        raise DataError(f"batch_size: {batch_size} is more than the {items} sequences that there are; lower it")
    return max(1, math.floor(epochs * items / batch_size + 0.5))


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit-decreasing bin packing: the largest first, each into the bin with the least sufficient space.

    Ding et al. 2024 (arXiv 2404.10830) pack documents in this way.

    Returns:
        The indices of the things in each bin, ascending; bins are ordered by their first index.
    """
    bins: list[list[int]] = []
    open_bins: dict[int, list[int]] = {}  # remaining space -> bins
    rooms: list[int] = []  # the keys of `open_bins` that have bins, ascending
    for thing in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        at = bisect_left(rooms, sizes[thing])
        if at == len(rooms):
            bins.append([thing])
            chosen, room = len(bins) - 1, capacity
        else:
            room = rooms[at]
            chosen = open_bins[room].pop()
            bins[chosen].append(thing)
            if not open_bins[room]:
                rooms.pop(at)
        left = room - sizes[thing]
        if not open_bins.get(left):
            insort(rooms, left)
        open_bins.setdefault(left, []).append(chosen)
    return sorted(sorted(group) for group in bins)
