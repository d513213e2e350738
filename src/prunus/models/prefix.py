"""What a smaller model inside a larger one has of each weight, when units are ordered so that smaller sizes come first.

On every axis the smaller model has the first units: channels, neurons, experts, KV heads, and of each KV head the first
query heads. Of a head's dimensions it has those that a config can express (see `rotary_pairs`), and of the layers a
given subset. From the families' tables alone; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from prunus.models.axes import positions, segment_size
from prunus.models.families.family import Place
from prunus.models.shape import Shape


@dataclass(frozen=True)
class Part:
    """A weight of the smaller model, as a part of one of the larger.

    Attributes:
        name: Its name in the smaller model.
        source: The name of the weight of the larger model.
        indices: The indices of the larger weight in each dimension.
        factor: What its values are multiplied by along its first dimension: one number, or one for each index.
        is_norm: Whether it is the gain or the bias of a norm.
    """

    name: str
    source: str
    indices: tuple[np.ndarray, ...]
    factor: float | np.ndarray
    is_norm: bool


def parts(
    large: Shape, small: Shape, layers: Sequence[int], weights: Iterable[tuple[str, Place]] | None = None
) -> Iterator[Part]:
    """The parts of which a smaller model consists.

    Args:
        large: The larger model's shape.
        small: The smaller model's.
        layers: The larger model's layers that the smaller one has, in order.
        weights: Names and places of the smaller model's weights; by default, those in a checkpoint.
    """
    members = first_units(large, small)
    for name, place in named_places(small) if weights is None else weights:
        layer = None if place.layer is None else layers[place.layer]
        source = name if layer is None else name.replace(
            small.family.layer.format(place.layer), large.family.layer.format(layer), 1
        )  # fmt: skip
        indices = positions(place.weight, large.sizes(), members)
        yield Part(name, source, tuple(indices), scale(place, large, small), is_norm(place, small))


def named_places(shape: Shape) -> Iterator[tuple[str, Place]]:
    """Name and place of every weight in a checkpoint of a shape."""
    for name, _ in shape.weights():
        place = shape.family.place(name)
        assert place is not None  # the table's own name
        yield name, place


def is_norm(place: Place, shape: Shape) -> bool:
    """Whether a weight is the gain or the bias of a norm."""
    layered, shared = shape.family.norms
    return place.key.rpartition(".")[0] in (*layered, *shared)


def scale(place: Place, large: Shape, small: Shape) -> float | np.ndarray:
    """The factor on a weight that follows from the sizes alone; see `Shape.stream_factor` and `query_factor`."""
    written = place.layer is not None and large.family.writes(place)
    return (small.stream_factor(large) if written else 1.0) * query_factor(place, large, small)


def first_units(large: Shape, small: Shape) -> Callable[[str], np.ndarray]:
    """The units of each axis of the larger model that the smaller one has."""
    sizes = small.sizes()
    group, kept = (shape.num_attention_heads // shape.num_key_value_heads for shape in (large, small))
    heads = (np.arange(small.num_key_value_heads)[:, None] * group + np.arange(kept)).reshape(-1)
    special = {"heads": heads, "head_dim": rotary_pairs(large, small.head_dim)}
    return lambda axis: special[axis] if axis in special else np.arange(sizes[axis])


def rotary_pairs(shape: Shape, count: int) -> np.ndarray:
    """The `count` dimensions of a head to keep: the pairs (i, i + head_dim / 2), or (2i, 2i + 1), of highest frequency.

    Rotary position embeddings rotate pair i with frequency theta^(-2i / head_dim). The first pairs keep their
    frequencies exactly if theta becomes theta^(count / head_dim); a config can express no other choice.
    """
    rotary = shape.family.rotary
    if count == shape.head_dim or (rotary is not None and rotary.interleaved):
        return np.arange(count)
    pairs = np.arange(count // 2)
    return np.concatenate([pairs, shape.head_dim // 2 + pairs])


def query_factor(place: Place, teacher: Shape, target: Shape) -> float | np.ndarray:
    """√(d' / d) for the last weight that queries pass, so that q·k / √d' equals the teacher's q·k / √d; otherwise 1."""
    if teacher.head_dim == target.head_dim or teacher.family.fixed_scale:
        return 1.0
    if not teacher.family.ends_queries(place):
        return 1.0
    ratio = sqrt(target.head_dim / teacher.head_dim)
    if teacher.family.query_norm:
        return ratio
    segments = place.weight.dims[0]
    sizes = target.sizes()
    return np.concatenate([np.full(segment_size(s, sizes), ratio if i == 0 else 1.0) for i, s in enumerate(segments)])
