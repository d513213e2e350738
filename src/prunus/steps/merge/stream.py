"""A merged model as bytes to be written: one weight of each model in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from prunus.errors import ModelError
from prunus.fingerprint import digest
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes
from prunus.models.families.family import Family
from prunus.steps.merge.config import MergeConfig, PartConfig, numbers
from prunus.steps.merge.method import Operands

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Weights = Mapping[str, TensorInfo]
"""A model's weights by their names in the family's table."""


def merged(config: MergeConfig, models: Sequence[Weights], base: Weights | None, family: Family) -> list[TensorPlan]:
    """The weights of the merged model, in the order and type of the first one's; what is no number is the first's."""

    def plan(name: str, info: TensorInfo) -> TensorPlan:
        def pieces() -> Iterator[bytes]:
            if info.dtype not in TYPES:
                yield read_bytes(info)
                return
            tensors = [read_tensor(model[name]) for model in models]
            below = read_tensor(base[name]) if base is not None else None
            yield to_bytes(name, combine(config, name, family, tensors, below), info.dtype)

        return TensorPlan(name, info.dtype, info.shape, pieces)

    return [plan(name, info) for name, info in models[0].items()]


def combine(config: MergeConfig, name: str, family: Family, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor:
    """One weight of the merged model, in float32 or float64.

    Args:
        config: The method, and its values by parts.
        name: The weight's name; with the seed it decides what `dare` drops.
        family: Its table.
        tensors: It, of each model.
        base: It, of the base, where the method has one.
    """
    own = [part for part in config.parts if holds(part, name, family)]
    count = len(tensors)
    operands = Operands(
        tensors,
        base,
        next((p.weights for p in reversed(own) if p.weights), config.weights) or (1.0,) * count,
        next((p.densities for p in reversed(own) if p.densities), config.densities) or (0.5,) * count,
        next((p.t for p in reversed(own) if p.t is not None), config.t),
        config.decay,
        config.scale,
        config.normalizes,
        lambda model: _chance(config.seed, name, model),
    )
    merge = config.definition.merge
    assert merge is not None  # whole layers are `flow.flowing`'s
    return merge(operands)


def holds(part: PartConfig, name: str, family: Family) -> bool:
    """Whether a part of the model has a weight."""
    place = family.place(name)
    layer = place.layer if place else None
    return (
        fnmatchcase(name, part.match)
        and (part.layers is None or layer in numbers(part.layers))
        and (part.module is None or part.module == (family.part_of(place) if place else "other"))
    )


def read_tensor(info: TensorInfo) -> Tensor:
    """A weight in float32, or in float64 if it is stored so."""
    stored = torch.frombuffer(bytearray(read_bytes(info)), dtype=TYPES[info.dtype]).reshape(info.shape)
    return stored if info.dtype == "F64" else stored.float()


def to_bytes(name: str, tensor: Tensor, dtype: str) -> bytes:
    """A weight as it is stored.

    Raises:
        ModelError: A value is not finite.
    """
    stored = tensor.to(TYPES[dtype])
    if not stored.isfinite().all():
        raise ModelError(f"merge: {name} comes to values that are not finite in {dtype}")
    return bytes(stored.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _chance(seed: int, name: str, model: int) -> torch.Generator:
    """Chance of its own for every weight of every model, whatever the order they are merged in."""
    return torch.Generator().manual_seed(int(digest([seed, name, model])[:15], 16))
