"""A merged model as a stream of bytes: one weight of each model is in memory at a time."""

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
"""A model's weights, by their names in the family's table."""


def merged(config: MergeConfig, models: Sequence[Weights], base: Weights | None, family: Family) -> list[TensorPlan]:
    """The weights of the merged model, in the first model's order and dtype; non-float tensors are copied from it."""

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
        name: The weight's name; with the seed it determines which values DARE drops.
        family: The models' family.
        tensors: The weight in each model.
        base: The weight in the base, if the method has one.
    """
    matching = [part for part in config.parts if matches(part, name, family)]
    count = len(tensors)
    operands = Operands(
        tensors,
        base,
        next((p.weights for p in reversed(matching) if p.weights), config.weights) or (1.0,) * count,
        next((p.densities for p in reversed(matching) if p.densities), config.densities) or (0.5,) * count,
        next((p.t for p in reversed(matching) if p.t is not None), config.t),
        config.decay,
        config.scale,
        config.normalizes,
        lambda model: _generator(config.seed, name, model),
    )
    merge = config.definition.merge
    assert merge is not None  # methods of whole layers use `flow.flowing`
    return merge(operands)


def matches(part: PartConfig, name: str, family: Family) -> bool:
    """Whether a part includes a weight."""
    place = family.place(name)
    layer = place.layer if place else None
    return (
        fnmatchcase(name, part.match)
        and (part.layers is None or layer in numbers(part.layers))
        and (part.module is None or part.module == (family.part_of(place) if place else "other"))
    )


def read_tensor(info: TensorInfo) -> Tensor:
    """A weight in float32, or in float64 if it is stored in float64."""
    stored = torch.frombuffer(bytearray(read_bytes(info)), dtype=TYPES[info.dtype]).reshape(info.shape)
    return stored if info.dtype == "F64" else stored.float()


def to_bytes(name: str, tensor: Tensor, dtype: str) -> bytes:
    """A weight as bytes in the stored dtype.

    Raises:
        ModelError: A value is not finite.
    """
    stored = tensor.to(TYPES[dtype])
    if not stored.isfinite().all():
        raise ModelError(f"merge: {name} has values that are not finite in {dtype}")
    return bytes(stored.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _generator(seed: int, name: str, model: int) -> torch.Generator:
    """A random generator for one weight of one model, independent of the order of merging."""
    return torch.Generator().manual_seed(int(digest([seed, name, model])[:15], 16))
