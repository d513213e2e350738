"""Training data of preference methods: pairs of answers, each after its prompt.

B items of a micro-batch, S sequence, longest of a micro-batch
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prunus.data.judged import Judged
from prunus.data.tokens import Tokens, schedule
from prunus.errors import DataError
from prunus.steps.align.config import AlignConfig
from prunus.training.packed import count_steps, document, pad
from prunus.training.sequences import Item, Items


class Answers(Items):
    """Pairs of answers; with `kto`, each answer paired with an answer to another prompt, placed after this prompt.

    Items of a step are sorted by length, so that micro-batches have little padding; the loss is a mean over the step,
    so the order does not matter.

    Args:
        tokens: The stream; each document is a conversation.
        judged: The rewards of its documents.
        config: The options.

    Attributes:
        lengths: Tokens of each sequence, by number.
        rows: [P, 2], the numbers of each item's two sequences. Numbers from N (documents) on are prompts with the
            answer of another document.
        reference: Log-probabilities of sequences under the reference, by number; None until they are computed.

    Raises:
        DataError: There are fewer items than one step needs.
    """

    def __init__(self, tokens: Tokens, judged: Judged, config: AlignConfig) -> None:
        self.tokens, self.judged, self.config = tokens, judged, config
        self.reference: np.ndarray | None = None
        self.count = len(tokens.ends)
        self.lengths = tokens.ends - tokens.starts
        if config.spec.learns == "labels":
            self.partners = _partners(self.count, config.seed)
            self.lengths = np.asarray([len(self.sequence(i)[0]) for i in range(2 * self.count)])
            self.rows = np.arange(self.count)[:, None] + np.asarray([0, self.count])
        else:
            self.rows = judged.pairs()
        if not len(self.rows):
            raise DataError(
                "align: no prompt has two answers with different rewards, so there are no pairs to train on"
            )
        self.steps = count_steps(len(self.rows), config.batch_size, config.epochs)
        self.warmup_steps = int(config.warmup * self.steps)
        lengths = self.lengths[self.rows]
        self.tokens_per_step = int(lengths.sum() / len(lengths) * config.batch_size)
        order = schedule(len(self.rows), self.steps * config.batch_size, config.seed)
        steps = order.reshape(self.steps, config.batch_size)
        longest = lengths.max(axis=1)[steps]
        self.order = np.take_along_axis(steps, np.argsort(-longest, axis=1, kind="stable"), axis=1).ravel()

    def __len__(self) -> int:
        return len(self.order)

    def sequence(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A sequence's ids, and for each token whether the next one, which it predicts, belongs to the answer."""
        if number < self.count:
            return document(self.tokens, number)
        (ids, counts), (others, theirs) = (
            document(self.tokens, i) for i in (number - self.count, int(self.partners[number - self.count]))
        )
        prompt, other_prompt = int(counts.argmax()) + 1, int(theirs.argmax()) + 1
        length = self.config.sequence_length
        mixed = np.concatenate([ids[:prompt], others[other_prompt:]])[:length]
        return mixed, np.concatenate([counts[:prompt], theirs[other_prompt:]])[:length]

    def __getitem__(self, index: int) -> Item:
        """One item.

        Returns:
            `ids` and `counts` of its two sequences, concatenated; `lengths` [2]; `rewards` [2]; `reference` [2] if
            known; and `numbers`, the item's number.
        """
        number = int(self.order[index])
        row = self.rows[number]
        parts = [self.sequence(int(sequence)) for sequence in row]
        item: Item = {
            "ids": np.concatenate([ids for ids, _ in parts]),
            "counts": np.concatenate([counts for _, counts in parts]),
            "lengths": np.asarray([len(ids) for ids, _ in parts]),
            "rewards": self.judged.rewards[row % self.count].astype(np.float32),
            "numbers": np.asarray(number),
        }
        if self.reference is not None:
            item["reference"] = self.reference[row].astype(np.float32)
        return item

    def collate(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """A micro-batch of items: the first sequences of all, then the second ones, [2 B, S]."""
        parts = [np.split(item["ids"], [item["lengths"][0]]) for item in items]
        counts = [np.split(item["counts"], [item["lengths"][0]]) for item in items]
        batch = sequences([part[i] for i in (0, 1) for part in parts], [part[i] for i in (0, 1) for part in counts])
        for name in ("rewards", "reference"):
            if name in items[0]:
                batch[name] = torch.from_numpy(np.stack([item[name] for item in items], axis=1).ravel())
        batch["numbers"] = torch.from_numpy(np.stack([item["numbers"] for item in items]))
        return batch


def sequences(ids: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """Sequences padded on the right, so that no answer attends to padding: `input_ids` and `counts`, [B, S] each."""
    length = max(map(len, ids))
    return {"input_ids": pad(ids, length), "counts": pad(counts, length)}


def _partners(count: int, seed: int) -> np.ndarray:
    """A random permutation of the documents without fixed points: each one's partner."""
    order = np.random.default_rng([seed, count]).permutation(count)
    partners = np.empty(count, dtype=np.int64)
    partners[order] = np.roll(order, 1)
    return partners
