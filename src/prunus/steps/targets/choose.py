"""What is kept of the teacher's distribution, a few positions at a time.

R positions, V vocabulary, K kept tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Choice:
    """What is kept of some positions.

    Attributes:
        ids: [R, K].
        log_probabilities: Of `ids`, and behind them of all the rest as one, [R, K + 1]; None of tokens that were drawn,
            each of which has 1 / K.
        mass: What the teacher gives to the tokens kept, [R].
    """

    ids: torch.Tensor
    log_probabilities: torch.Tensor | None
    mass: torch.Tensor


def top_k(logits: torch.Tensor, count: int, temperature: float) -> Choice:
    """The likeliest tokens, or all if there are fewer, of logits [R, V]."""
    kept, ids = torch.log_softmax(logits / temperature, dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
    mass = kept.exp().sum(dim=-1).clamp_max(1)
    rest = torch.log1p(-mass) if kept.shape[-1] < logits.shape[-1] else torch.full_like(mass, -torch.inf)
    return Choice(ids, torch.cat([kept, rest[:, None]], dim=-1), mass)


def drawn(logits: torch.Tensor, chances: torch.Tensor, temperature: float) -> Choice:
    """Tokens drawn with replacement: of each the one at which the sum of probabilities passes its chance.

    Args:
        logits: [R, V].
        chances: [R, K] in [0, 1).
        temperature: T.
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64  # a sum over V of what may be tiny
    probabilities = torch.softmax(logits / temperature, dim=-1)
    total = probabilities.cumsum(dim=-1, dtype=wide)
    whole = total[:, -1:].contiguous()
    passed = torch.searchsorted(total, chances.to(wide) * whole, right=True)
    last = torch.searchsorted(total, whole)  # the last token of any probability, where rounding says `whole`
    ids = torch.minimum(passed, last).clamp_max(logits.shape[-1] - 1)  # of NaN, which the mass then is
    once = torch.zeros_like(probabilities).scatter_(-1, ids, 1.0)
    return Choice(ids, None, torch.linalg.vecdot(probabilities, once))


def chances(seed: int, number: int, length: int, count: int) -> np.ndarray:
    """What a block's tokens are drawn with, by its number alone: [length, count] in [0, 1)."""
    return np.random.default_rng([seed, number]).random((length, count))
