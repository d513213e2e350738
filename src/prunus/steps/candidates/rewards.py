"""Rewards of answers: by each row's check, by a reward model, or by a judge's grade.

B answers of a batch, S sequence
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.data.chat import Conversation
from prunus.data.template import Dialogue, Template
from prunus.errors import DataError, HubError
from prunus.judging.config import JudgeConfig
from prunus.judging.judge import SAVED, Judge
from prunus.judging.prompts import filled, judge_prompts
from prunus.models.load import device_of, inference_dtype
from prunus.models.pretrained import load_tokenizer
from prunus.models.rewarding import load_reward_model, rewards
from prunus.runtime import Runtime
from prunus.training.loop import loading_device, place
from prunus.training.objectives import Objective
from prunus.verify.reward import reward

JUDGE = "align.write.judge"


@dataclass(frozen=True)
class Question:
    """A prompt as the model reads it.

    Attributes:
        row: The conversation that it comes from.
        text: The prompt with special tokens.
        ids: The prompt as token ids.
    """

    row: Conversation
    text: str
    ids: list[int]


def by_rule(answers: Sequence[tuple[Question, str]]) -> np.ndarray:
    """The reward of each answer by its row's check, [N].

    Raises:
        DataError: A check cannot be read.
    """
    values = [reward(text, one.row.check or {}, one.row.tools or (), one.row.where) for one, text in answers]
    return np.asarray(values, dtype=np.float64)


def by_judge(answers: Sequence[tuple[Question, str]], config: JudgeConfig, out: Path, console: Console) -> np.ndarray:
    """The grade of each answer by a judge, [N]; NaN if it gives none. Its verdicts are stored in `out`.

    Raises:
        DataError: The judge's prompts cannot be read, or it graded no answer.
        HubError: Requests failed. Verdicts are stored; a later run queries the missing ones.
    """
    prompts = judge_prompts(config, JUDGE)
    judge = Judge(config, out / SAVED, JUDGE)
    queries = {i: filled(prompts, [_shown(one)], [text]) for i, (one, text) in enumerate(answers)}
    grades = judge.grade(queries, console)
    tally = judge.tally
    summary = f"{tally.graded} of {tally.asked} answers have a grade; {tally.malformed} verdicts contain none, and "
    summary += f"{tally.failed} requests failed"
    if tally.missing > tally.refused:  # refused requests would be refused again, so they do not count
        raise HubError(f"{tally.hole}; {summary}. Run it again to query the missing ones")
    if not grades:
        raise DataError(f"{JUDGE}: {summary}" + (f": {tally.hole}" if tally.hole else ""))
    if len(grades) < len(answers):
        console.warn(f"{JUDGE}: {summary}")
    return np.asarray([grades.get(i, np.nan) for i in range(len(answers))])


def _shown(one: Question) -> str:
    """A prompt as the judge reads it: the user's message; or all turns with their roles, and the tools."""
    turns = one.row.prompt_turns()
    if len(turns) == 1 and not one.row.tools:
        return str(turns[0]["content"])
    parts = [f"### Functions:\n{json.dumps(one.row.tools, ensure_ascii=False)}"] if one.row.tools else []
    for turn in turns:
        lines = [str(turn.get("content") or "")]
        lines += [json.dumps(turn["tool_calls"], ensure_ascii=False)] if turn.get("tool_calls") else []
        parts.append(f"### {str(turn['role']).capitalize()}:\n" + "\n".join(filter(None, lines)))
    return "\n\n".join(parts)


def by_model(answers: Sequence[tuple[Question, str]], folder: Path, template: Template, runtime: Runtime) -> np.ndarray:
    """The reward model's rewards of whole conversations, with its own template and tokens, [N].

    The processes share the answers, and with `shard` the model's weights; all must call this.

    Args:
        answers: The prompt of each answer, and its text.
        folder: The reward model's folder.
        template: The chat template to use if the reward model's tokenizer has none.
        runtime: Device and micro-batch size.

    Raises:
        DataError: A reward is not finite.
    """
    device = device_of(runtime)
    scorer = Scorer(load_reward_model(folder, loading_device(runtime), inference_dtype(runtime, device)))
    place(scorer, runtime)
    tokenizer = load_tokenizer(folder)
    reads = Template(tokenizer, tokenizer.chat_template or template.text)
    dialogues = [
        Dialogue(one.row.where, [*one.row.prompt_turns(), {"role": "assistant", "content": text}], one.row.tools)
        for one, text in answers
    ]
    ids = [read.ids[: read.answers[-1][1]] for read in reads.render(dialogues)]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    size = runtime.device_batch_size
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    values = torch.zeros(len(ids), dtype=torch.float64)
    for number in range(0, len(batches), distributed.count()):
        batch = number + distributed.rank()
        # with sharded weights, all processes must call the model equally often
        scores = _score(scorer, [ids[i] for i in batches[batch % len(batches)]])
        if batch < len(batches):
            values[batches[batch]] = scores
    distributed.all_reduce([values])
    wrong = torch.nonzero(~torch.isfinite(values)).flatten()
    if len(wrong):
        raise DataError(f"{answers[int(wrong[0])][0].row.where}: the reward model's reward is {values[wrong[0]]}")
    return values.numpy()


class Scorer(Objective):
    """A reward model that is evaluated, not trained."""

    has_head = False

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.requires_grad_(False))

    def forward(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The rewards [B] of sequences `ids` [B, S], each at the token with index `last` [B]."""
        return rewards(self.model, ids, last)


@torch.no_grad()
def _score(scorer: Scorer, ids: list[list[int]]) -> torch.Tensor:
    """The rewards of a batch, each at the last token of the answer, [B]."""
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids], device=scorer.model.device)
    last = torch.tensor([len(row) - 1 for row in ids], device=scorer.model.device)
    return torch.as_tensor(scorer(padded, last), dtype=torch.float64).cpu()
