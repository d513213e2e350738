"""Confidence intervals by the bootstrap, for ratios of sums over windows of text.

N windows, R resamples
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_CELLS = 5_000_000  # of a resampling matrix held at once


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    confidence: float,
    resamples: int,
    seed: int,
    transform: Callable[[Any], Any] = lambda ratio: ratio,
) -> dict[str, float]:
    """Σ numerators / Σ denominators with its percentile bootstrap interval (Efron 1979), windows being the units.

    Text is drawn in stretches, and the tokens of one stretch depend on each other; so windows are resampled, never
    tokens. A difference between two models is paired if its numerators are the windows' own differences.

    Args:
        numerators: [N], such as each window's summed negative log-likelihood.
        denominators: [N], such as its number of tokens.
        confidence: Level, such as 0.95.
        resamples: R.
        seed: Seed of the resampling.
        transform: Monotone function from the ratio to the reported value, such as `np.exp` for perplexity.

    Returns:
        `value`, `low` and `high`.
    """
    draw = np.random.default_rng(seed)
    count = len(numerators)
    rows = max(1, _CELLS // count)
    ratios = []
    for start in range(0, resamples, rows):
        weights = draw.multinomial(count, np.full(count, 1 / count), size=min(rows, resamples - start))
        ratios.append((weights @ numerators) / (weights @ denominators))
    low, high = np.quantile(np.concatenate(ratios), [(1 - confidence) / 2, (1 + confidence) / 2])
    value = numerators.sum() / denominators.sum()
    return {"value": float(transform(value)), "low": float(transform(low)), "high": float(transform(high))}
