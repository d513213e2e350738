"""Sampling in which a prompt's answer does not depend on the other prompts in its batch.

B batch, T new tokens, V vocabulary
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor


def draws(seed: int, numbers: list[int], count: int) -> torch.Tensor:
    """Uniform random numbers for the tokens of each prompt, seeded by its number: [B, T] in [0, 1)."""
    rows = [np.random.default_rng([seed, number]).random(count) for number in numbers]
    return torch.tensor(np.array(rows)).float()


def sample(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds `uniform`. [B, V] and [B] to [B].

    Args:
        logits: In float32.
        uniform: Random numbers in [0, 1].
        temperature: Above 0.
        top_p: Keep only the likeliest tokens that together have this probability (nucleus sampling, arXiv
            1904.09751).
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        falling, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = falling.cumsum(dim=-1) - falling
        probabilities = torch.zeros_like(falling).scatter(-1, order, torch.where(before < top_p, falling, 0.0))
    total = probabilities.cumsum(dim=-1)
    whole = total[:, -1:].contiguous()
    passed = torch.searchsorted(total, uniform[:, None] * whole, right=True)
    last = torch.searchsorted(total, whole)  # the last token with a probability above 0, if rounding gives `whole`
    return torch.minimum(passed, last)[:, 0]


class SeededSampling(LogitsProcessor):
    """Samples a token for each row and masks all others, so that greedy decoding picks it.

    Args:
        uniform: Random numbers [B, T], as `draws` returns them.
        start: Length of the prompts with their padding.
        temperature: Above 0.
        top_p: As in `sample`.
    """

    def __init__(self, uniform: torch.Tensor, start: int, temperature: float, top_p: float) -> None:
        self.uniform, self.start, self.temperature, self.top_p = uniform, start, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [B, V]: 0 for the sampled token, -inf for the others."""
        uniform = self.uniform[:, input_ids.shape[1] - self.start]
        drawn = sample(scores.float(), uniform, self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)
