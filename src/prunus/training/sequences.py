"""The sequences that a run trains on: which, in what order, and what of each counts.

S sequence
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from prunus.data.blocks import Blocks
from prunus.data.tokens import Tokens, schedule
from prunus.training.config import TrainingConfig

Item = dict[str, np.ndarray]

Extra = Callable[[int], Item]
"""From a block's number to more that the objective is handed of it, by the names of its arguments."""


class Items(Dataset[Item]):
    """What a run trains on, item by item, in order.

    Attributes:
        steps: Optimiser steps of the run.
        warmup_steps: Over so many the learning rate rises from 0.
        tokens_per_step: Tokens of one, on average.
    """

    steps: int
    warmup_steps: int
    tokens_per_step: int

    def __len__(self) -> int:
        raise NotImplementedError

    def collate(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Some items as a portion of a batch."""
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


class Sequences(Items):
    """The sequences of a whole run, in order. An item's number says which it is, so that resuming replays nothing.

    Args:
        tokens: The stream.
        config: Says how long sequences are, how many a step has, in what order they come, and what of them counts.
        extra: What more there is of each block.

    Raises:
        DataError: The stream does not fill one sequence.
    """

    def __init__(self, tokens: Tokens, config: TrainingConfig, extra: Extra | None = None) -> None:
        self.tokens, self.config, self.extra = tokens, config, extra
        self.steps, self.warmup_steps = config.steps, config.warming
        self.tokens_per_step = config.batch_size * config.sequence_length
        self.blocks = Blocks(tokens, config.sequence_length)
        self.order = schedule(len(self.blocks), config.steps * config.batch_size, config.seed)
        self.masked = tokens.answers is not None and not config.learn_prompts
        self.step_counts: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Item:
        """One sequence.

        Returns:
            `input_ids` [S]; `numbers`, which block of the stream it is; `weights` [S] where only a part counts, of
            mean 1 over the step; `position_ids` [S] where documents are kept apart; and what `extra` has.
        """
        number = int(self.order[index])
        item: Item = {
            "input_ids": self.blocks.ids(number).astype(np.int64),
            "numbers": np.asarray(number, dtype=np.int64),
        }
        if self.masked:
            wanted = self.config.batch_size * self.config.sequence_length
            counted = self._step_count(index // self.config.batch_size)
            item["weights"] = self._counts(number) * np.float32(wanted / max(counted, 1))
        if not self.config.attend_across_documents:
            item["position_ids"] = self.blocks.positions(number)
        return item if self.extra is None else {**item, **self.extra(number)}

    def _counts(self, number: int) -> np.ndarray:
        """1 where the next token is none of a prompt, else 0, and 0 for the last, [S]."""
        return np.append(self.blocks.loss_mask(number)[1:], False).astype(np.float32)

    def _step_count(self, step: int) -> float:
        """How many tokens count in all sequences of a step; kept, as each of them asks."""
        if step not in self.step_counts:
            numbers = self.order[step * self.config.batch_size : (step + 1) * self.config.batch_size]
            self.step_counts[step] = float(sum(self._counts(int(number)).sum() for number in numbers))
        return self.step_counts[step]
