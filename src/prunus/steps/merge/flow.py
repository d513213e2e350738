"""Data-flow merging: layers of several models one after the other, as one plain model (arXiv 2403.13187, section 3.2).

The paper multiplies the input of each layer by a scale. In a network whose norms come before what they feed, and see no
scale, (c x) + f(c x) = c (x + f(x) / c): to scale the stream by c is to scale all that is written later by 1 / c, up to
a factor that the last norm takes out. So here the scale is on what a layer writes, and goes into the matrices that do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes
from prunus.models.families.family import Family, Place
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.steps.merge.stream import TYPES, Weights, read_tensor, to_bytes

LayerPath = Sequence[tuple[int, int]]


def flowing(path: LayerPath, scales: Sequence[float], models: Sequence[Weights], family: Family) -> list[TensorPlan]:
    """The weights of the model whose layers are those of `path`, (model, layer) each; the rest is the first model's."""
    layers: dict[tuple[int, int], list[tuple[Place, TensorInfo]]] = {}
    shared = []
    for number, weights in enumerate(models):
        for name, info in weights.items():
            place = family.place(name)
            if place is not None and place.layer is not None:
                layers.setdefault((number, place.layer), []).append((place, info))
            elif number == 0:
                shared.append(_copied(name, info, 1.0, 0.0))
    plans = []
    for position, (step, scale) in enumerate(zip(path, scales or [1.0] * len(path), strict=True)):
        for place, info in layers[step]:
            name = family.name_of(place.key, position, place.expert)
            plans.append(_copied(name, info, scale if family.writes(place) else 1.0, family.offset_of(place)))
    return [*shared, *plans]


def flow_config(config: Mapping[str, Any], shape: Shape, path: LayerPath) -> dict[str, Any]:
    """The config.json of such a model, lists by layer in its path's order."""
    layers = [layer for _, layer in path]
    return student_config(config, shape, shape.with_dimensions({"num_hidden_layers": len(layers)}), layers)


def _copied(name: str, info: TensorInfo, scale: float, offset: float) -> TensorPlan:
    """A weight under another name, multiplied."""

    def pieces() -> Iterator[bytes]:
        if scale == 1.0 or info.dtype not in TYPES:
            yield read_bytes(info)
        else:
            with torch.no_grad():
                yield to_bytes(name, scale * (read_tensor(info) + offset) - offset, info.dtype)

    return TensorPlan(name, info.dtype, info.shape, pieces)
