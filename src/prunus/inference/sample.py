"""Drawing tokens so that a prompt's answer is the same whatever prompts stand beside it.

B batch, T new tokens, V vocabulary
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor


def draws(seed: int, numbers: list[int], count: int) -> torch.Tensor:
    """For each prompt, by its number, the chances that its tokens are drawn with: [B, T] in [0, 1)."""
    rows = [np.random.default_rng([seed, number]).random(count) for number in numbers]
    return torch.tensor(np.array(rows)).float()


def sample(logits: torch.Tensor, chance: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The token at which the sum of probabilities passes `chance`: [B, V] and [B] to [B].

    Args:
        logits: In float32.
        chance: In [0, 1].
        temperature: Above 0.
        top_p: Only the likeliest tokens that together have this probability are kept (nucleus sampling, arXiv
            1904.09751).
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        falling, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = falling.cumsum(dim=-1) - falling
        probabilities = torch.zeros_like(falling).scatter(-1, order, torch.where(before < top_p, falling, 0.0))
    total = probabilities.cumsum(dim=-1)
    whole = total[:, -1:].contiguous()
    passed = torch.searchsorted(total, chance[:, None] * whole, right=True)
    last = torch.searchsorted(total, whole)  # the last token of any probability, where rounding says `whole`
    return torch.minimum(passed, last)[:, 0]


class Drawn(LogitsProcessor):
    """Leaves of each row the one token that is drawn, so that greedy decoding takes it.

    Args:
        chances: [B, T], as `draws` gives them.
        start: Length of the prompts with their padding.
        temperature: Above 0.
        top_p: As in `sample`.
    """

    def __init__(self, chances: torch.Tensor, start: int, temperature: float, top_p: float) -> None:
        self.chances, self.start, self.temperature, self.top_p = chances, start, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of what is drawn: 0 there and -inf elsewhere, [B, V]."""
        chance = self.chances[:, input_ids.shape[1] - self.start]
        drawn = sample(scores.float(), chance, self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)
