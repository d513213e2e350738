"""Successive halving, and how rankings change between rungs: pure functions on names and losses.

Jamieson and Talwalkar 2016 (arXiv 1502.07943): all candidates get a small budget, the better 1 / eta of them eta times
as much, and so on. Deviation: a candidate continues from the previous rung instead of starting again from its cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

Losses = Mapping[str, float]


def ranking(losses: Losses) -> list[str]:
    """Names by rising loss."""
    return sorted(losses, key=lambda name: losses[name])


def survivors(losses: Losses, eta: int) -> list[str]:
    """The better 1 / eta of them, at least one, best first."""
    return ranking(losses)[: max(1, math.ceil(len(losses) / eta))]


def rung_sizes(count: int, eta: int, rungs: int) -> list[int]:
    """The number of candidates of each rung. A rung with a single candidate would decide nothing and is omitted."""
    sizes = [count]
    while len(sizes) < rungs and math.ceil(sizes[-1] / eta) > 1:
        sizes.append(math.ceil(sizes[-1] / eta))
    return sizes


def rank_correlation(first: Losses, second: Losses) -> float | None:
    """Spearman's rank correlation over the common names; ties get their mean rank.

    None for fewer than three names, or if all losses of one list are equal.
    """
    names = [name for name in first if name in second]
    if len(names) < 3:
        return None
    ranks = np.stack([_ranks([losses[name] for name in names]) for losses in (first, second)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(axis=1).all() else None


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values)
    return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])


def regret(chosen_by: Losses, judged_by: Losses) -> float:
    """The cost of choosing by one list: its best candidate's loss in the other list, minus the lowest loss there."""
    names = [name for name in chosen_by if name in judged_by]
    first = min(names, key=lambda name: chosen_by[name])
    return judged_by[first] - min(judged_by[name] for name in names)


def settled(rungs: Sequence[Losses]) -> int:
    """The first rung whose best candidate remains the best in all later rungs."""
    leaders = [ranking(losses)[0] for losses in rungs]
    at = len(leaders) - 1
    while at and leaders[at - 1] == leaders[-1]:
        at -= 1
    return at
