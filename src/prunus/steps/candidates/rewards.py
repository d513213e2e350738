"""What answers are worth: by each row's own check, as a reward model has it, or by a judge's grade.

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
from prunus.models.load import device_of, inference_dtype, load_tokenizer
from prunus.models.rewarding import load_reward_model, rewards
from prunus.runtime import Runtime
from prunus.training.loop import loading_device, place
from prunus.training.objectives import Objective
from prunus.verify.reward import reward

JUDGE = "align.write.judge"


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


def by_rule(answers: Sequence[tuple[Asked, str]]) -> np.ndarray:
    """The reward of each answer by its row's own check, [N].

    Raises:
        DataError: A check cannot be read.
    """
    found = [reward(text, one.row.check or {}, one.row.tools or (), one.row.where) for one, text in answers]
    return np.asarray(found, dtype=np.float64)


def by_judge(answers: Sequence[tuple[Asked, str]], config: JudgeConfig, out: Path, console: Console) -> np.ndarray:
    """The grade of each answer by a judge, [N]; NaN where it gives none. Its verdicts are kept in `out`.

    Raises:
        DataError: The judge's prompts cannot be read, or it gave no grade to any answer.
        HubError: It did not answer some request. Its verdicts are kept; a later run asks for the rest.
    """
    prompts = judge_prompts(config, JUDGE)
    judge = Judge(config, out / SAVED, JUDGE)
    wanted = {i: filled(prompts, [_shown(one)], [text]) for i, (one, text) in enumerate(answers)}
    grades = judge.grade(wanted, console)
    tally = judge.tally
    told = f"{tally.graded} of {tally.asked} answers have a grade; {tally.malformed} verdicts have none in them, and "
    told += f"{tally.failed} requests failed"
    if tally.missing > tally.refused:  # what it refuses it would refuse again: that is left out
        raise HubError(f"{tally.hole}; {told}. Run it again to go on from there")
    if not grades:
        raise DataError(f"{JUDGE}: {told}" + (f": {tally.hole}" if tally.hole else ""))
    if len(grades) < len(answers):
        console.warn(f"{JUDGE}: {told}")
    return np.asarray([grades.get(i, np.nan) for i in range(len(answers))])


def _shown(one: Asked) -> str:
    """A question as the judge reads it: what the user said, or all turns with their speakers, and the tools."""
    turns = one.row.prompt_turns()
    if len(turns) == 1 and not one.row.tools:
        return str(turns[0]["content"])
    parts = [f"### Functions:\n{json.dumps(one.row.tools, ensure_ascii=False)}"] if one.row.tools else []
    for turn in turns:
        said = [str(turn.get("content") or "")]
        said += [json.dumps(turn["tool_calls"], ensure_ascii=False)] if turn.get("tool_calls") else []
        parts.append(f"### {str(turn['role']).capitalize()}:\n" + "\n".join(filter(None, said)))
    return "\n\n".join(parts)


def by_model(answers: Sequence[tuple[Asked, str]], folder: Path, template: Template, runtime: Runtime) -> np.ndarray:
    """What a reward model says of whole conversations, each by its own template and tokens, [N].

    Several processes share the answers, and with `shard` the model's weights; all call it.

    Args:
        answers: The question of each, and its text.
        folder: The reward model's.
        template: How it reads a conversation, if its tokenizer has no template of its own.
        runtime: Device and portions.

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
    found = torch.zeros(len(ids), dtype=torch.float64)
    for number in range(0, len(batches), distributed.count()):
        mine = number + distributed.rank()
        said = _judged(scorer, [ids[i] for i in batches[mine % len(batches)]])  # all call the model equally often
        if mine < len(batches):
            found[batches[mine]] = said
    distributed.all_reduce([found])
    wrong = torch.nonzero(~torch.isfinite(found)).flatten()
    if len(wrong):
        raise DataError(f"{answers[int(wrong[0])][0].row.where}: the reward model's reward is {found[wrong[0]]}")
    return found.numpy()


class Scorer(Objective):
    """A reward model that is asked and not trained."""

    has_head = False

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.requires_grad_(False))

    def forward(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The rewards of sequences, each read at one of its tokens: ids [B, S] and places [B] to [B]."""
        return rewards(self.model, ids, last)


@torch.no_grad()
def _judged(scorer: Scorer, ids: list[list[int]]) -> torch.Tensor:
    """The rewards of a batch, each read at the last token of the answer, [B]."""
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids], device=scorer.model.device)
    last = torch.tensor([len(row) - 1 for row in ids], device=scorer.model.device)
    return torch.as_tensor(scorer(padded, last), dtype=torch.float64).cpu()
