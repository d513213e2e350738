"""The Pareto front of cost and loss."""

from __future__ import annotations

from collections.abc import Mapping


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the points (cost, loss) that no other point dominates, by rising cost."""
    best, names = float("inf"), []
    for name in sorted(points, key=lambda name: points[name]):
        if points[name][1] < best:
            best = points[name][1]
            names.append(name)
    return names
