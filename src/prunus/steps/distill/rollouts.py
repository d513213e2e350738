"""Text that the student generates during training, to be graded by its teacher (`data: student`).

Generalised knowledge distillation: Agarwal et al. 2024, arXiv 2306.13649, algorithm 1. Rollouts that grow from short to
long and end where they repeat themselves: ShortOPD, arXiv 2607.13124; here repetition is found in the text alone.

B sequences, S their length, N new tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

LONGEST_CYCLE = 32
"""Tokens of the longest cycle that is recognised."""
_REPEATED = 12  # a cycle counts once at least this many tokens, and two more rounds of it, have repeated


@dataclass(frozen=True)
class Rollouts:
    """Sequences that the student continued.

    Attributes:
        ids: [B, S]: prompts and continuations.
        weights: [B, S], of mean 1: 0 except at positions that predict a token of a continuation before its cut.
        figures: `rollout_tokens`, the mean number of those tokens; with cuts `repeating`, the share of continuations
            that were cut.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    figures: dict[str, torch.Tensor]


class Repeating(StoppingCriteria):
    """Ends generation when every continuation repeats itself.

    Args:
        prompt: Tokens of the prompts, which may repeat themselves.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each sequence ends in a cycle: [B]. Transformers remembers those that did."""
        recent = input_ids[:, self.prompt :][:, -3 * LONGEST_CYCLE :]
        return repetition_ends(recent) <= recent.shape[1]


@torch.no_grad()
def sample_continuations(
    model: PreTrainedModel, input_ids: torch.Tensor, prompt: int, new: int, cut_repetition: bool = False
) -> Rollouts:
    """Sample continuations of the first tokens of sequences from the student, at temperature 1.

    No gradient flows through the sampling.

    Args:
        model: The student.
        input_ids: [B, S'], of which the prompts are taken.
        prompt: Number of tokens of each sequence that serve as the prompt.
        new: Tokens of each continuation; fewer are generated if all of them repeat themselves before that.
        cut_repetition: Whether tokens after the point at which a continuation has repeated itself have weight 0.
    """
    training = model.training
    options = GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, max_new_tokens=new, min_new_tokens=None, eos_token_id=None, pad_token_id=0
    )
    prompts = input_ids[:, :prompt]
    stops = StoppingCriteriaList([Repeating(prompt)] if cut_repetition else [])
    model.eval()
    ids = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), generation_config=options, stopping_criteria=stops
    )
    model.train(training)
    count = ids.shape[1] - prompt
    ends = repetition_ends(ids[:, prompt:]).clamp_max(count) if cut_repetition else ids.new_full((len(ids),), count)
    learnt = torch.arange(count, device=ids.device) < ends[:, None]
    weights = torch.zeros(ids.shape, device=ids.device)
    weights[:, prompt - 1 : -1] = learnt * (ids.numel() / learnt.sum())
    figures = {"rollout_tokens": learnt.sum(dim=1).float().mean()}
    if cut_repetition:
        figures["repeating"] = (repetition_ends(ids[:, prompt:]) <= count).float().mean()
    return Rollouts(ids, weights, figures)


def repetition_ends(ids: torch.Tensor) -> torch.Tensor:
    """The number of tokens after which each sequence has repeated itself: token ids [B, N] to [B]; N + 1 if it has not.

    A sequence has repeated itself if its last max(2 p, 12) tokens equal those p earlier, for a cycle of p tokens, p at
    most `LONGEST_CYCLE`.
    """
    length = ids.shape[1]
    ends = torch.full((len(ids),), length + 1, device=ids.device)
    for period in range(1, min(LONGEST_CYCLE, length - 1) + 1):
        needed = max(2 * period, _REPEATED)
        if period + needed > length:
            break
        equal = (ids[:, period:] == ids[:, :-period]).int()
        inside = equal.cumsum(dim=1)
        runs = inside[:, needed - 1 :].clone()  # equal tokens among the last `needed`
        runs[:, 1:] -= inside[:, : runs.shape[1] - 1]
        found = runs == needed
        first = torch.where(found.any(dim=1), found.int().argmax(dim=1) + period + needed, length + 1)
        ends = torch.minimum(ends, first)
    return ends
