"""Data-flow merging: layers of several models in sequence, as one plain model (arXiv 2403.13187, section 3.2).

The paper multiplies the input x of each layer f by a scale c. In a pre-norm network, f(c x) = f(x), since norms ignore
scale. So (c x) + f(c x) = c (x + f(x) / c): scaling the stream by c equals scaling everything that is added later by
1 / c, up to a factor that the last norm removes. Here the scale is applied to what a layer adds to the stream, and is
multiplied into its output matrices.
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
    """The weights of the model with the layers of `path`, as (model, layer); other weights are the first model's."""
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
    """The config.json of such a model; per-layer lists are in the order of the path."""
    layers = [layer for _, layer in path]
    return student_config(config, shape, shape.with_dimensions({"num_hidden_layers": len(layers)}), layers)


def _copied(name: str, info: TensorInfo, scale: float, offset: float) -> TensorPlan:
    """A weight under another name, multiplied by `scale`."""

    def pieces() -> Iterator[bytes]:
        if scale == 1.0 or info.dtype not in TYPES:
            yield read_bytes(info)
        else:
            with torch.no_grad():
                yield to_bytes(name, scale * (read_tensor(info) + offset) - offset, info.dtype)

    return TensorPlan(name, info.dtype, info.shape, pieces)
