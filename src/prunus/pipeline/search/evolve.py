"""Children of the better shapes: crossed axis by axis, changed by a step, and brought back into the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunus.models.shape import Shape
from prunus.pipeline.search.space import Space, key_of

_TRIES = 200  # for each child that is wanted
_REPAIRS = 24  # steps of other axes until it fits


def breed(
    parents: Sequence[Shape], count: int, space: Space, known: set[tuple[int, ...]], draw: np.random.Generator
) -> list[Shape]:
    """Up to `count` new shapes in the budget.

    Args:
        parents: The better ones, best first; the first third is drawn twice as often.
        count: How many are wanted.
        space: With the finest sizes of every axis.
        known: Keys of the shapes that have been tried.
        draw: Chance.
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
    """The nearest size that the space has of every free axis."""
    found = {}
    for axis, sizes in space.sizes.items():
        own = getattr(shape, axis)
        if axis == "num_attention_heads":
            own //= shape.num_key_value_heads
        found[axis] = min(sizes, key=lambda size, own=own: abs(size - own))  # type: ignore[misc]
    return found


def _child(
    mother: Mapping[str, int], father: Mapping[str, int], space: Space, draw: np.random.Generator
) -> Shape | None:
    """One of two shapes' sizes on each axis, one axis a step or two away, and then steps of others until it fits."""
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
