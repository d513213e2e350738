"""Figures that compare two models' logits on the same tokens.

S tokens, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

_ROWS = 64  # of logits that are turned into probabilities at once


COARSE = 1e-2
"""The largest difference that is ever accepted as rounding, in units of the logits' standard deviation."""

TYPICAL = 2e-4
"""The root mean square of all differences that rounding explains, if a single difference exceeds the tolerance.

A confident model amplifies rounding on text that it does not expect: the first `builtin:sapling`, of 1.8M parameters,
had differences of up to 2.6e-3 on random tokens, and 5e-5 in the mean. An epsilon half as large gives 7e-4 in the mean,
one twice as large 1.4e-3 (4e-4 and 8e-4 in today's of 3.5M).
"""


ENLARGED = (10.0, 10.0)
"""Allowed rounding of another engine in float32, as multiples (largest, mean) of transformers' float32 against float64.

`builtin:sapling` on 512 random tokens: transformers' rounding is 6e-3 at most and 1.2e-4 in the mean (logits with a
standard deviation of 3), llama.cpp's five times as much.
"""


TABLE = (3.0, 1.75)
"""Allowed rounding of llama.cpp if it reads GELU from a half-precision table (Gemma, GPT-2, GPT-NeoX), as multiples
(largest, mean) of transformers' with a half-precision GELU. The mean hardly varies. Tiny models have 0.7 to 1.0 and 1.0
to 1.1, Gemma 3 270M up to 1.3 and 1.2: docs/decisions/0005."""


@dataclass
class Agreement:
    """How far one model differs from another over windows of text.

    Attributes:
        difference: The largest difference between two logits.
        mean_square: The mean squared difference, the largest over windows.
        spread: The standard deviation of the reference's logits, the largest over windows.
        kl: The mean of KL(reference ‖ other) of each window, nats per token.
        agreed: Number of tokens with the same top-1 prediction.
        tokens: Number of tokens.
        nll: Summed negative log-likelihood of the text by the reference and by the other model, nats.
        predicted: Number of tokens in `nll`.
    """

    difference: float = 0.0
    mean_square: float = 0.0
    spread: float = 0.0
    kl: list[float] = field(default_factory=list)
    agreed: int = 0
    tokens: int = 0
    nll: list[float] = field(default_factory=lambda: [0.0, 0.0])
    predicted: int = 0

    def add(self, ids: np.ndarray, reference: np.ndarray, other: np.ndarray) -> None:
        """Count one window: its tokens [S] and both models' logits [S, V]."""
        apart = np.abs(reference - other)
        self.difference = max(self.difference, float(apart.max()))
        self.mean_square = max(self.mean_square, float(np.square(apart, out=apart).mean(dtype=np.float64)))
        self.spread = max(self.spread, float(reference.std()))
        self.agreed += int((reference.argmax(-1) == other.argmax(-1)).sum())
        self.tokens += len(ids)
        kl = 0.0
        for start in range(0, len(ids), _ROWS):
            part = slice(start, start + _ROWS)
            ours, theirs = (torch.from_numpy(one[part]).double().log_softmax(-1) for one in (reference, other))
            kl += float(functional.kl_div(theirs, ours, reduction="sum", log_target=True))
            targets = ids[start + 1 : start + 1 + _ROWS]
            rows = np.arange(len(targets))
            self.nll[0] -= float(ours[rows, targets].sum())
            self.nll[1] -= float(theirs[rows, targets].sum())
        self.predicted += len(ids) - 1
        self.kl.append(kl / len(ids))

    def is_within(self, rounding: Agreement, factors: tuple[float, float]) -> bool:
        """Whether the difference is at most `factors` (largest, root mean square) times a model's own `rounding`."""
        most, mean = factors
        largest = self.difference <= most * rounding.difference
        return largest and self.mean_square**0.5 <= mean * rounding.mean_square**0.5

    def is_rounding(self, tolerance: float) -> bool:
        """Whether rounding explains the difference.

        Args:
            tolerance: The largest difference usually caused by rounding, in units of the logits' standard deviation.
        """
        if self.difference <= tolerance * self.spread:
            return True
        return self.mean_square**0.5 <= TYPICAL * self.spread and self.difference <= COARSE * self.spread

    @property
    def mean_kl(self) -> float:
        """KL(reference ‖ other) in nats per token; all windows have equal weight."""
        return float(np.mean(self.kl))

    def figures(self, is_text: bool) -> dict[str, float]:
        """The figures by name, for a record; without perplexity if the tokens are random.

        `kl_error` is the standard error of `kl` over windows.
        """
        error = float(np.std(self.kl, ddof=1) / math.sqrt(len(self.kl))) if len(self.kl) > 1 else math.nan
        found = {
            "max_logit_difference": self.difference,
            "logit_spread": self.spread,
            "kl": self.mean_kl,
            "top1": self.agreed / self.tokens,
            "tokens": self.tokens,
        }
        if math.isfinite(error):
            found["kl_error"] = error
        if is_text:
            reference, other = (math.exp(total / self.predicted) for total in self.nll)
            found |= {"perplexity": other, "perplexity_of_model": reference}
        return found


def first_departure(choices: Iterable[int], logits: np.ndarray, allowed: float) -> int | None:
    """The index of a model's first greedy choice that another model would not make, or None.

    Args:
        choices: The tokens, [N].
        logits: The other model's logits before each token, [N, V].
        allowed: How far below the best logit a choice may be.
    """
    for i, token in enumerate(choices):
        if logits[i, token] < logits[i].max() - allowed:
            return i
    return None
