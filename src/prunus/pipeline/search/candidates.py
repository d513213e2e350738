"""Which shapes are tried, how they are cut, and in which order: by the importance lost, taking turns over depths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, get_args

import numpy as np

from prunus.models.shape import Shape
from prunus.pipeline.search.config import Axis, Way
from prunus.pipeline.search.space import name_of

SCALED: tuple[Axis, ...] = get_args(Axis)
_WAYS: dict[Way, str] = {"once": "", "depth_first": "-depth-first", "halfway": "-halfway"}


@dataclass(frozen=True)
class Candidate:
    """A shape, and how it is cut.

    Attributes:
        name: Its name in tables and folders.
        shape: The final shape.
        via: The intermediate shape that is briefly distilled; None if there is only one cut.
        way: Name of the cutting schedule.
        dropped: The layers to drop; empty if the scores choose them.
    """

    name: str
    shape: Shape
    via: Shape | None = None
    way: Way = "once"
    dropped: tuple[int, ...] = ()


def candidates_of(
    teacher: Shape, shape: Shape, ways: Sequence[Way], others: Sequence[tuple[int, ...]] = ()
) -> list[Candidate]:
    """The candidates of a shape: one for each of `ways` that applies (`once` if none does), one for each of `others`.

    Args:
        teacher: The shape that is cut.
        shape: The final shape.
        ways: Cutting schedules.
        others: Other sets of layers to drop.
    """
    found = [one for way in ways if (one := candidate(teacher, shape, way)) is not None]
    name = _name(teacher, shape, "once")
    chosen = [Candidate(f"{name}-without-{spans(layers)}", shape, dropped=layers) for layers in others]
    return [*(found or [Candidate(name, shape)]), *chosen]


def spans(layers: Sequence[int]) -> str:
    """Ascending numbers as ranges: `1-3`, or `1+3-5` if there are gaps."""
    ends: list[list[int]] = []
    for layer in layers:
        if ends and layer == ends[-1][1] + 1:
            ends[-1][1] = layer
        else:
            ends.append([layer, layer])
    return "+".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def candidate(teacher: Shape, shape: Shape, way: Way = "once") -> Candidate | None:
    """A candidate, or None if the schedule `way` has no intermediate shape between teacher and `shape`.

    `depth_first` drops layers, then cuts the width (NVIDIA's chain). `halfway` first cuts every axis to the geometric
    mean of the teacher's size and the final one.
    """
    via = None
    if way == "depth_first":
        via = teacher.with_dimensions({"num_hidden_layers": shape.num_hidden_layers})
    if way == "halfway":
        via = _halfway(teacher, shape)
    if way != "once" and (via is None or via in (teacher, shape)):
        return None
    return Candidate(_name(teacher, shape, way), shape, via, way)


def _name(teacher: Shape, shape: Shape, way: Way) -> str:
    vocabulary = f"-{shape.vocab_size}v" if shape.vocab_size != teacher.vocab_size else ""
    return name_of(shape) + vocabulary + _WAYS[way]


def _halfway(teacher: Shape, shape: Shape) -> Shape:
    """The loadable shape nearest to the geometric mean; heads as in the teacher, unless they depend on the width."""
    layers, mlp, middle = (
        max(getattr(shape, axis), round(math.sqrt(getattr(teacher, axis) * getattr(shape, axis))))
        for axis in ("num_hidden_layers", "intermediate_size", "hidden_size")
    )
    sizes = range(shape.hidden_size, teacher.hidden_size + 1)
    for hidden in sorted(sizes, key=lambda size: abs(size - middle)):
        dims = {"num_hidden_layers": layers, "intermediate_size": mlp, "hidden_size": hidden}
        if teacher.family.square:
            dims["num_attention_heads"] = hidden // teacher.head_dim
            if teacher.num_key_value_heads == teacher.num_attention_heads:
                dims["num_key_value_heads"] = dims["num_attention_heads"]
        middle_shape = teacher.with_dimensions(dims)
        if middle_shape.loads():
            return middle_shape
    return teacher


def lost_importance(scores: Mapping[str, Any], teacher: Shape, shape: Shape) -> float:
    """The importance that a cut drops, by the scores: each axis's share, summed over the axes.

    A rough estimate, used only to thin out candidates and never to choose among them: rankings before and after
    recovery differ (arXiv 2407.14679, section 4.3).

    Args:
        scores: `scores.json` of the teacher: importance of `neurons` [L][mlp], `channels` [hidden] and `heads`
            [L][heads], and `layers.block_influence` [L].
        teacher: The scored shape.
        shape: The final shape.
    """
    total = 0.0
    influence = np.asarray(scores["layers"]["block_influence"])
    drop = teacher.num_hidden_layers - shape.num_hidden_layers
    if drop and influence.sum():
        total += float(min(influence[i : i + drop].sum() for i in range(len(influence) - drop + 1)) / influence.sum())
    kept = {
        "neurons": shape.intermediate_size,
        "channels": shape.hidden_size,
        "heads": shape.num_attention_heads,
        "experts": shape.num_experts,
    }
    return total + sum(_dropped_share(scores[axis], count) for axis, count in kept.items() if axis in scores and count)


def _dropped_share(importance: Any, count: int) -> float:
    """The share of importance outside the top `count` of each row."""
    rows = np.sort(np.atleast_2d(np.asarray(importance, dtype=float)), axis=-1)[..., ::-1]
    rows = rows.reshape(-1, rows.shape[-1])
    return float(1 - rows[:, :count].sum() / rows.sum()) if rows.sum() else 0.0


def proportional(teacher: Shape, shapes: Sequence[Shape]) -> Shape:
    """The shape whose axes are cut most evenly: least standard deviation of log(size / teacher's size)."""

    def spread(shape: Shape) -> float:
        free = [axis for axis in SCALED if len({getattr(one, axis) for one in shapes}) > 1]
        shares = [math.log(getattr(shape, axis) / getattr(teacher, axis)) for axis in free]
        return float(np.std(shares)) if shares else 0.0

    return min(shapes, key=spread)


def trial_order(teacher: Shape, shapes: Sequence[Shape], scores: Mapping[str, Any] | None) -> list[Shape]:
    """Shapes in the order to try them: first the proportional one, then round-robin over depths, least lost first.

    There is no single ranking, since scores of layers and of widths are not comparable.
    """
    loss = {
        id(shape): lost_importance(scores, teacher, shape) if scores else _unevenness(teacher, shape)
        for shape in shapes
    }
    even = proportional(teacher, shapes)
    by_depth: dict[int, list[Shape]] = {}
    for shape in sorted(shapes, key=lambda shape: loss[id(shape)]):
        if shape is not even:
            by_depth.setdefault(shape.num_hidden_layers, []).append(shape)
    queues = sorted(by_depth.values(), key=lambda queue: loss[id(queue[0])])
    rounds = zip_longest(*queues)
    return [even, *(shape for one in rounds for shape in one if shape is not None)]


def _unevenness(teacher: Shape, shape: Shape) -> float:
    shares = [getattr(shape, axis) / getattr(teacher, axis) for axis in SCALED]
    return float(np.std(shares))
