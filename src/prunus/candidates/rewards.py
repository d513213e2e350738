"""What answers are worth: by each row's own check, or as a reward model has it.

B answers of a batch, S sequence
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus.data.chat import Conversation
from prunus.data.template import Dialogue, Template
from prunus.errors import DataError
from prunus.models.load import device_of, inference_dtype, load_tokenizer
from prunus.models.rewarding import load_reward_model, rewards
from prunus.runtime import Runtime
from prunus.verify.reward import reward


@dataclass(frozen=True)
class Asked:
    """A question as the model reads it.

    Attributes:
        row: The conversation that it is the end of.
        text: With special tokens.
        ids: The same as tokens.
    """

    row: Conversation
    text: str
    ids: list[int]


def rewards_of(
    answers: Sequence[tuple[Asked, str]], judge: Path | None, template: Template, runtime: Runtime
) -> np.ndarray:
    """The reward of each answer, [N].

    Args:
        answers: The question of each, and its text.
        judge: A reward model's folder; the rows' own checks if not given.
        template: How the reward model reads a conversation, if its tokenizer has no template of its own.
        runtime: Device and portions.

    Raises:
        DataError: A check cannot be read, or a reward is not finite.
    """
    if judge is None:
        found = [reward(text, one.row.check or {}, one.row.tools or (), one.row.where) for one, text in answers]
        return np.asarray(found, dtype=np.float64)
    return _by_model(answers, judge, template, runtime)


def _by_model(answers: Sequence[tuple[Asked, str]], folder: Path, template: Template, runtime: Runtime) -> np.ndarray:
    """What a reward model says of whole conversations, each by its own template and tokens."""
    device = device_of(runtime)
    model = load_reward_model(folder, device, inference_dtype(runtime, device))
    tokenizer = load_tokenizer(folder)
    reads = Template(tokenizer, tokenizer.chat_template or template.text)
    dialogues = [
        Dialogue(one.row.where, [*one.row.asks(), {"role": "assistant", "content": text}], one.row.tools)
        for one, text in answers
    ]
    ids = [read.ids[: read.answers[-1][1]] for read in reads.render(dialogues)]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    found = np.empty(len(ids))
    for first in range(0, len(order), runtime.device_batch_size):
        batch = order[first : first + runtime.device_batch_size]
        found[batch] = _judged(model, [ids[i] for i in batch])
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise DataError(f"{answers[wrong[0]][0].row.where}: the reward model's reward is {found[wrong[0]]}")
    return found


@torch.no_grad()
def _judged(model: PreTrainedModel, ids: list[list[int]]) -> np.ndarray:
    """The rewards of a batch, each read at the last token of the answer, [B]."""
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids], device=model.device)
    last = torch.tensor([len(row) - 1 for row in ids], device=model.device)
    return np.asarray(rewards(model, padded, last).cpu())
