"""Bootstrap confidence intervals for ratios of sums over windows of text or over a task's items.

N windows or items, R resamples
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_CELLS = 5_000_000  # elements of a resampling matrix in memory at a time


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    confidence: float,
    resamples: int,
    seed: int,
    transform: Callable[[Any], Any] = lambda ratio: ratio,
) -> dict[str, float]:
    """Σ numerators / Σ denominators with its percentile bootstrap interval (Efron 1979) over windows.

    Tokens of a window depend on each other, so windows are resampled, not tokens. A difference between two models is
    paired if the numerators are differences per window.

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
    found = []
    for weights in _drawn(len(numerators), resamples, seed):
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample with a denominator of 0 is ignored
            found.append((weights @ numerators) / (weights @ denominators))
    return _interval(numerators.sum() / denominators.sum(), np.concatenate(found), confidence, transform)


def paired_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    confidence: float,
    resamples: int,
    seed: int,
    transform: Callable[[Any], Any] = lambda ratio: ratio,
) -> dict[str, float]:
    """The difference of two models' ratios of sums on the same items, with its percentile bootstrap interval.

    The same items are drawn for both, so that the difficulty of items cancels out.

    Args:
        ours: [N, 2], each item's numerator and denominator.
        theirs: [N, 2], the other model's.
        confidence: Level.
        resamples: R.
        seed: Seed of the resampling.
        transform: As in `ratio_interval`; applied to both ratios before they are compared.

    Returns:
        `value` (ours - theirs), `low` and `high`.
    """
    found = []
    for weights in _drawn(len(ours), resamples, seed):
        a, b = weights @ ours, weights @ theirs
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(transform(a[:, 0] / a[:, 1]) - transform(b[:, 0] / b[:, 1]))
    value = transform(ours[:, 0].sum() / ours[:, 1].sum()) - transform(theirs[:, 0].sum() / theirs[:, 1].sum())
    return _interval(value, np.concatenate(found), confidence, lambda difference: difference)


def standard_error(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """The standard error of a ratio of sums over items, by linearisation (Cochran 1977, eq. 2.46).

    It is sd/√N if every denominator is 1. Needs two items or more.
    """
    count = len(numerators)
    left = numerators - numerators.sum() / denominators.sum() * denominators
    return float(np.sqrt(count / (count - 1) * (left**2).sum()) / denominators.sum())


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The p-value of McNemar's exact test on items that only one of two models answers correctly.

    Args:
        ours: [N] of 0 and 1.
        theirs: [N] of 0 and 1.
    """
    won, lost = int(((ours == 1) & (theirs == 0)).sum()), int(((ours == 0) & (theirs == 1)).sum())
    if won == lost:
        return 1.0
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (won + lost))


def _drawn(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `count` units is drawn, for all resamples, in chunks of rows: [rows, count]."""
    draw = np.random.default_rng(seed)
    rows = max(1, _CELLS // count)
    for start in range(0, resamples, rows):
        yield draw.multinomial(count, np.full(count, 1 / count), size=min(rows, resamples - start))


def _interval(
    value: float, resampled: np.ndarray, confidence: float, transform: Callable[[Any], Any]
) -> dict[str, float]:
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"value": float(transform(value)), "low": float(transform(low)), "high": float(transform(high))}
