"""Sizes between those of a nest: their shapes, and the gains of norms that nothing trained for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from prunus.errors import ShapeError
from prunus.models.nest import Nest, Nested, check_within, own_norms
from prunus.models.prefix import parts
from prunus.models.shape import PRUNABLE, Shape

STEPS = 64
"""Steps from one size of a nest to the next in which a shape that meets a budget is looked for."""


def between(nest: Nest, shape: Shape, where: str) -> Nested:
    """A size of that shape: one of the nest's, or one between them.

    Args:
        nest: The nest.
        shape: The shape.
        where: The name of the option, for messages.

    Raises:
        ShapeError: It is not between the smallest and the largest size, or has another number of layers than any size.
    """
    known = next((size for size in nest.sizes if size.shape == shape), None)
    if known is not None:
        return known
    name = "this shape"
    if shape.num_attention_heads % shape.num_key_value_heads:
        raise ShapeError(
            f"{where}.num_attention_heads: {shape.num_attention_heads} heads cannot be shared equally by "
            f"{shape.num_key_value_heads} KV heads"
        )
    largest, smallest = nest.sizes[0], nest.sizes[-1]
    check_within(name, shape, largest.name, largest.shape, where)
    check_within(smallest.name, smallest.shape, name, shape, where)
    layers = {size.shape.num_hidden_layers: size.layers for size in nest.sizes}
    if shape.num_hidden_layers not in layers:
        raise ShapeError(
            f"{where}.num_hidden_layers: {shape.num_hidden_layers}; a size between those of a nest has the layers of "
            f"one of them: {', '.join(map(str, sorted(layers)))}"
        )
    shape.check_loadable(where)
    return Nested(name, shape, layers[shape.num_hidden_layers])


def norms_between(nest: Nest, size: Nested) -> dict[str, np.ndarray]:
    """The gains and biases of a size's norms: a mean of those of the next larger and the next smaller size.

    Of the channels that the next smaller size lacks, and of layers that it lacks, they are the larger one's. The weight
    is the share of channels that the size has of those by which the two differ; of parameters if they have equally many
    channels.

    Args:
        nest: The nest.
        size: One of its sizes, or one of `between`.
    """
    if size in nest.sizes:
        return own_norms(nest, size)
    above = min((one for one in nest.sizes if _holds(one, size)), key=lambda one: one.shape.parameters)
    below = max((one for one in nest.sizes if _holds(size, one)), key=lambda one: one.shape.parameters)
    values = _narrowed(above, size, own_norms(nest, above))
    share = _share(above.shape, size.shape, below.shape)
    theirs = own_norms(nest, below)
    for part in parts(size.shape, below.shape, [size.layers.index(layer) for layer in below.layers]):
        if part.is_norm:
            mine = values[part.source]
            mine[part.indices[0]] = share * mine[part.indices[0]] + (1 - share) * theirs[part.name]
    return values


def _narrowed(large: Nested, small: Nested, norms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The larger size's norms in the units and layers of the smaller one."""
    layers = [large.layers.index(layer) for layer in small.layers]
    found = parts(large.shape, small.shape, layers)
    return {part.name: norms[part.source][part.indices[0]] for part in found if part.is_norm}


def _holds(large: Nested, small: Nested) -> bool:
    """Whether a size has all that another has."""
    if not set(small.layers) <= set(large.layers):
        return False
    try:
        check_within(small.name, small.shape, large.name, large.shape, "")
    except ShapeError:
        return False
    return True


def _share(above: Shape, shape: Shape, below: Shape) -> float:
    for quantity in ("hidden_size", "parameters"):
        high, mine, low = (getattr(one, quantity) for one in (above, shape, below))
        if high > low:
            return float((mine - low) / (high - low))
    return 1.0


def shapes_between(nest: Nest, multiple: int) -> Iterator[Shape]:
    """All sizes of the nest, and on the way from each to the next the shapes that transformers loads.

    Args:
        nest: The nest.
        multiple: Channels and neurons of the shapes between are multiples of it.
    """
    for large, small in pairwise(nest.sizes):
        yield large.shape
        for step in range(1, STEPS):
            shape = _mixed(large.shape, small.shape, step / STEPS, multiple)
            if shape.loads() and shape not in (large.shape, small.shape):
                yield shape
    yield nest.sizes[-1].shape


def _mixed(large: Shape, small: Shape, share: float, multiple: int) -> Shape:
    """A shape on the way from one size to another; `share` is 0 at the larger and 1 at the smaller one.

    Layers, heads and experts, which are few, are the larger size's in its half of the way.
    """
    sizes: dict[str, int] = {}
    for axis in PRUNABLE:
        high, low = getattr(large, axis), getattr(small, axis)
        if axis in ("hidden_size", "intermediate_size"):
            value = high + share * (low - high)
            sizes[axis] = min(max(round(value / multiple) * multiple, low), high)
        else:
            sizes[axis] = high if share < 1 / 2 else low
    return large.with_dimensions(sizes)
