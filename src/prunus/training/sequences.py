"""The sequences that a run trains on, their order, and the weights of their tokens.

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
"""Maps a block's number to further inputs of the objective, by the names of its arguments."""


class Items(Dataset[Item]):
    """The items that a run trains on, in order.

    Attributes:
        steps: Optimiser steps of the run.
        warmup_steps: Steps over which the learning rate rises from 0.
        tokens_per_step: Tokens per step, on average.
    """

    steps: int
    warmup_steps: int
    tokens_per_step: int

    def __len__(self) -> int:
        raise NotImplementedError

    def collate(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Stack items to a micro-batch."""
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


class Sequences(Items):
    """The sequences of a whole run, in order. An item's index determines it, so that resuming replays nothing.

    Args:
        tokens: The stream.
        config: The length, number, order and loss mask of the sequences.
        extra: Further inputs of each block.

    Raises:
        DataError: The stream does not fill one sequence.
    """

    def __init__(self, tokens: Tokens, config: TrainingConfig, extra: Extra | None = None) -> None:
        self.tokens, self.config, self.extra = tokens, config, extra
        self.steps, self.warmup_steps = config.steps, config.resolved_warmup
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
            `input_ids` [S]; `numbers`, the block's number in the stream; `weights` [S] if only answers count, with
            mean 1 over the step; `position_ids` [S] if documents do not attend to each other; and those of `extra`.
        """
        number = int(self.order[index])
        item: Item = {
            "input_ids": self.blocks.ids(number).astype(np.int64),
            "numbers": np.asarray(number, dtype=np.int64),
        }
        if self.masked:
            total = self.config.batch_size * self.config.sequence_length
            answer_tokens = self._step_count(index // self.config.batch_size)
            item["weights"] = self._mask(number) * np.float32(total / max(answer_tokens, 1))
        if not self.config.attend_across_documents:
            item["position_ids"] = self.blocks.positions(number)
        return item if self.extra is None else {**item, **self.extra(number)}

    def _mask(self, number: int) -> np.ndarray:
        """1 where the next token belongs to an answer, else 0; 0 for the last, [S]."""
        return np.append(self.blocks.loss_mask(number)[1:], False).astype(np.float32)

    def _step_count(self, step: int) -> float:
        """The number of answer tokens in all sequences of a step; cached, since each of them needs it."""
        if step not in self.step_counts:
            numbers = self.order[step * self.config.batch_size : (step + 1) * self.config.batch_size]
            self.step_counts[step] = float(sum(self._mask(int(number)).sum() for number in numbers))
        return self.step_counts[step]
