"""The `expand` step: a larger model with the same outputs, as a start for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from prunus.console import Console
from prunus.models.axes import positions
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes, write_tensors
from prunus.models.families.family import Place
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.models.values import from_float, to_float
from prunus.runtime import Runtime
from prunus.steps.expand.config import ExpandConfig, origins_of


@dataclass(frozen=True)
class Inputs:
    """Inputs of the step.

    Attributes:
        model: The smaller model's folder.
    """

    model: Path


def run(config: ExpandConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the larger model to `out`.

    Returns:
        Its parameters, total and non-embedding.

    Raises:
        ShapeError: A dimension is smaller than the model's.
        ModelError: The model's weights do not match its config.
    """
    model = ModelFolder(inputs.model)
    model.check()
    target = config.target(model.shape, "expand")
    origins = origins_of(model.shape.num_hidden_layers, target.num_hidden_layers)
    copy_along(inputs.model, out)
    plans = list(_plans(model.weights, model.shape, target, origins, config.seed))
    with console.progress("expand", sum(plan.nbytes for plan in plans), "bytes") as progress:
        write_tensors(out, plans, on_progress=progress.update)
    write_config(out, student_config(model.config, model.shape, target, origins))
    larger = ModelFolder(out)
    larger.check()
    return {
        "parameters": larger.shape.parameters,
        "non_embedding_parameters": larger.shape.non_embedding_parameters,
    }


def _plans(
    tensors: Mapping[str, TensorInfo], model: Shape, target: Shape, origins: list[int], seed: int
) -> Iterator[TensorPlan]:
    """Every tensor of the larger model."""
    family = target.family
    for number, (name, weight) in enumerate(target.weights()):
        place = family.place(name)
        assert place is not None  # the names come from the table
        origin = None if place.layer is None else origins[place.layer]
        info = tensors[family.name_of(place.key, origin, place.expert)]
        copied = place.layer is not None and origin in origins[: place.layer]
        idle = copied and family.writes(place)
        yield TensorPlan(name, info.dtype, weight.shape(target.sizes()),
                         partial(_pieces, info, place, model, target, idle, [seed, number]))  # fmt: skip


def _pieces(
    info: TensorInfo, place: Place, model: Shape, target: Shape, idle: bool, seed: list[int]
) -> Iterator[bytes]:
    """One tensor of the larger model; the smaller one's tensor is its part with the first neurons."""
    family, shape = target.family, place.weight.shape(target.sizes())
    if idle:
        yield from_float(np.full(shape, -family.offset_of(place)), info.dtype)
        return
    if shape == info.shape:
        yield read_bytes(info)
        return
    original = to_float(read_bytes(info), info.dtype).reshape(info.shape)
    reads = any({"mlp", "shared"} & set(segment) for segment in place.weight.dims[family.outputs(place.weight)])
    values = np.random.default_rng(seed).normal(0.0, original.std(), shape) if reads else np.zeros(shape)
    members = {axis: np.arange(size) for axis, size in model.sizes().items()}
    experts = [np.arange(len(original))] if place.weight.stacked else []
    values[np.ix_(*experts, *positions(place.weight, target.sizes(), members.__getitem__))] = original
    yield from_float(values, info.dtype)
