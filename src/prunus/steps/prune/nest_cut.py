"""Cuts a nest: the largest size with its units in the order of their worth, and the norms of every smaller size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.checkpoint import write_tensors
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.nest import Nested, write_nest
from prunus.models.prefix import is_norm
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.models.values import to_float
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.nest_order import choose_nested, order_of, ordered
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.rotate import Rotation


@dataclass(frozen=True)
class SizeCut:
    """How one size of a nest is cut from the teacher.

    Attributes:
        name: The size's name.
        shape: Its shape.
        keep: The units that it keeps, as the teacher's indices, ascending.
        order: Their order in the nest, as indices into the kept units.
        rotation: The change of basis, if the cut rotates.
    """

    name: str
    shape: Shape
    keep: Keep
    order: Keep
    rotation: Rotation | None


def nested_cuts(
    teacher: ModelFolder,
    shapes: Mapping[str, Shape],
    config: PruneConfig,
    scores: Scores,
    rotations: Sequence[Rotation] | None,
) -> list[SizeCut]:
    """How each size is cut, the largest first.

    Args:
        teacher: The teacher.
        shapes: The sizes' shapes, the largest first.
        config: The options.
        scores: The teacher's scores.
        rotations: The change of basis of each size; None if the cut does not rotate.
    """
    whole, sizes = teacher.shape, list(shapes.values())
    keeps = choose_nested(scores, whole, sizes, config)
    orders = [order_of(keep, scores, whole, sizes[-1], size, config) for keep, size in zip(keeps, sizes, strict=True)]
    turned: Sequence[Rotation | None] = rotations or [None] * len(sizes)
    return [SizeCut(*parts) for parts in zip(shapes, sizes, keeps, orders, turned, strict=True)]


def write_cuts(
    teacher: ModelFolder, cuts: Sequence[SizeCut], scores: Scores, out: Path, update: Callable[[float], None]
) -> None:
    """Write the nest's checkpoint, and the norms that an ordinary cut to each size would have.

    Args:
        teacher: The teacher.
        cuts: How each size is cut, the largest first.
        scores: The teacher's scores.
        out: The folder to write.
        update: Called with the parameters written so far.
    """
    largest = cuts[0]
    plans = cut(teacher.tensors, teacher.shape, largest.shape, largest.keep, scores, largest.rotation)
    copy_along(teacher.path, out)
    item = sum(plan.nbytes for plan in plans) / largest.shape.parameters
    write_tensors(out, ordered(plans, largest.shape, largest.order), on_progress=lambda done: update(done / item))
    write_config(out, student_config(teacher.config, teacher.shape, largest.shape, largest.keep.layers))
    norms = {
        f"{size.name}/{name}": values for size in cuts[1:] for name, values in _norms(teacher, size, scores).items()
    }
    write_nest(out, [_nested(size, largest) for size in cuts], norms)


def _nested(size: SizeCut, largest: SizeCut) -> Nested:
    layers = tuple(largest.keep.layers.index(layer) for layer in size.keep.layers)
    return Nested(size.name, size.shape, layers)


def _norms(teacher: ModelFolder, size: SizeCut, scores: Scores) -> dict[str, np.ndarray]:
    """The gains and biases of an ordinary cut to a size, in the nest's order."""
    places = {name: teacher.family.place(name) for name in teacher.tensors}
    stored = {
        name: teacher.tensors[name]
        for name, place in places.items()
        if place is not None and is_norm(place, teacher.shape)
    }
    plans = cut(stored, teacher.shape, size.shape, size.keep, scores, size.rotation)
    vectors = ordered(plans, size.shape, size.order)
    return {plan.name: to_float(b"".join(plan.pieces()), plan.dtype) for plan in vectors}
