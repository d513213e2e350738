"""Selection of the tokens to store from the teacher's distribution, a few positions at a time.

R positions, V vocabulary, K stored tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Choice:
    """The stored tokens of some positions.

    Attributes:
        ids: [R, K].
        log_probabilities: Of `ids`, and last of all other tokens together, [R, K + 1]; None for sampled tokens, which
            have 1 / K each.
        mass: The teacher's total probability of the stored tokens, [R].
    """

    ids: torch.Tensor
    log_probabilities: torch.Tensor | None
    mass: torch.Tensor


def top_k(logits: torch.Tensor, count: int, temperature: float) -> Choice:
    """The `count` most likely tokens, or all if there are fewer, of logits [R, V]."""
    kept, ids = torch.log_softmax(logits / temperature, dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
    mass = kept.exp().sum(dim=-1).clamp_max(1)
    rest = torch.log1p(-mass) if kept.shape[-1] < logits.shape[-1] else torch.full_like(mass, -torch.inf)
    return Choice(ids, torch.cat([kept, rest[:, None]], dim=-1), mass)


def drawn(logits: torch.Tensor, chances: torch.Tensor, temperature: float) -> Choice:
    """Tokens sampled with replacement, by inverting the cumulative distribution.

    Args:
        logits: [R, V].
        chances: Uniform random numbers [R, K] in [0, 1).
        temperature: T.
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64  # for a sum of many tiny values
    probabilities = torch.softmax(logits / temperature, dim=-1)
    total = probabilities.cumsum(dim=-1, dtype=wide)
    whole = total[:, -1:].contiguous()
    passed = torch.searchsorted(total, chances.to(wide) * whole, right=True)
    last = torch.searchsorted(total, whole)  # the last token with a probability, if rounding reaches `whole`
    ids = torch.minimum(passed, last).clamp_max(logits.shape[-1] - 1)  # for NaN, which then shows in the mass
    once = torch.zeros_like(probabilities).scatter_(-1, ids, 1.0)
    return Choice(ids, None, torch.linalg.vecdot(probabilities, once))


def chances(seed: int, number: int, length: int, count: int) -> np.ndarray:
    """Uniform random numbers for a block, depending only on its number: [length, count] in [0, 1)."""
    return np.random.default_rng([seed, number]).random((length, count))
