"""Evolution of shapes: crossover axis by axis, a mutation of one axis, and repair until the child fits the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunus.models.shape import Shape
from prunus.pipeline.search.space import Space, key_of

_TRIES = 200  # for each requested child
_REPAIRS = 24  # mutations of other axes until it fits


def breed(
    parents: Sequence[Shape], count: int, space: Space, known: set[tuple[int, ...]], draw: np.random.Generator
) -> list[Shape]:
    """Up to `count` new shapes in the budget.

    Args:
        parents: The better shapes, best first; those of the first third are drawn twice as often.
        count: Number of children.
        space: The search space, with the finest sizes of every axis.
        known: Keys of shapes that were tried already.
        draw: Random generator.
    """
    weights = np.array([2.0 if i < (len(parents) + 2) // 3 else 1.0 for i in range(len(parents))])
    children: dict[tuple[int, ...], Shape] = {}
    for _ in range(_TRIES * count):
        if len(children) == count:
            break
        mother, father = (parents[i] for i in draw.choice(len(parents), 2, p=weights / weights.sum()))
        child = _child(_picked(mother, space), _picked(father, space), space, draw)
        if child is not None and key_of(child) not in known:
            children.setdefault(key_of(child), child)
    return list(children.values())


def _picked(shape: Shape, space: Space) -> dict[str, int]:
    """The nearest size in the space, for every free axis."""
    picked = {}
    for axis, sizes in space.sizes.items():
        value = getattr(shape, axis)
        if axis == "num_attention_heads":
            value //= shape.num_key_value_heads
        picked[axis] = min(sizes, key=lambda size, value=value: abs(size - value))  # type: ignore[misc]
    return picked


def _child(
    mother: Mapping[str, int], father: Mapping[str, int], space: Space, draw: np.random.Generator
) -> Shape | None:
    """Each axis from one of two parents, one axis changed by one or two sizes, then other axes until it fits."""
    axes = list(space.sizes)
    picked = {axis: (mother, father)[int(draw.integers(2))][axis] for axis in axes}
    changed = axes[int(draw.integers(len(axes)))]
    _step(picked, changed, int(draw.choice([-2, -1, 1, 2])), space)
    for _ in range(_REPAIRS):
        shape = space.shape(picked)
        if shape is None:
            return None
        if space.fits(shape):
            return shape
        down = space.meter.fill(space.budget, shape) > 1
        others = [axis for axis in axes if axis != changed or len(axes) == 1]
        _step(picked, others[int(draw.integers(len(others)))], -1 if down else 1, space)
    return None


def _step(picked: dict[str, int], axis: str, by: int, space: Space) -> None:
    sizes = space.sizes[axis]
    at = sizes.index(picked[axis]) + by
    picked[axis] = sizes[min(max(at, 0), len(sizes) - 1)]
