"""The order of a tensor's rows in llama.cpp.

Where the order differs from transformers', the permutation follows from the weight's entry in the axis table:

    conv1d            [in, out] of GPT-2 is transposed to [out, in]
    (heads head_dim)  of q and k, if rotary pairs are adjacent in llama.cpp: (heads 2 half) -> (heads half 2)
    (linear_values linear_value_dim), values of one key after the other: -> the first of each key, then the second
    (heads 3 head_dim) hidden, with q, k, v of each head adjacent: -> (3 heads head_dim)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunus.models.axes import Segment, Weight
from prunus.models.families.gguf import Gguf


def row_order(weight: Weight, name: str, there: Gguf, sizes: Mapping[str, int], conv1d: bool) -> np.ndarray | None:
    """The row indices (outputs, whichever dimension they are) in llama.cpp's order; None if the order is the same.

    Args:
        weight: The weight's entry in the axis table.
        name: llama.cpp's name of the tensor.
        there: How llama.cpp stores the family.
        sizes: The size of every axis.
        conv1d: Whether outputs are the second dimension of a matrix.
    """
    outputs = weight.dims[-1 if conv1d and len(weight.dims) == 2 else 0]
    if (tiled := tiled_order(outputs, there, sizes)) is not None:
        return tiled
    if len(outputs) != 1:  # fused segments, whose order is the same in both
        return None
    segment = outputs[0]
    shape = [item if isinstance(item, int) else sizes[item] for item in segment]
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    if _has_thirds_inside(segment):
        return np.moveaxis(numbers, segment.index(3), 0).reshape(-1)
    if name.split(".")[-2] in there.pairs:
        halves = numbers.reshape(*shape[:-1], 2, shape[-1] // 2)
        return np.swapaxes(halves, -1, -2).reshape(-1)
    return None


def column_order(weight: Weight, there: Gguf, sizes: Mapping[str, int]) -> np.ndarray | None:
    """The indices of a matrix's inputs in llama.cpp's order; None if the order is the same."""
    return tiled_order(weight.dims[1], there, sizes) if len(weight.dims) == 2 else None


def tiled_order(dim: Sequence[Segment], there: Gguf, sizes: Mapping[str, int]) -> np.ndarray | None:
    """The indices of a dimension with axes of `Gguf.tiled`; None if it has none, or one unit of each."""
    if not any(axis in segment and sizes[axis] != sizes[by] for segment in dim for axis, by in there.tiled.items()):
        return None
    parts, start = [], 0
    for segment in dim:
        shape = [item if isinstance(item, int) else sizes[item] for item in segment]
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        for axis, by in there.tiled.items():
            if axis in segment:
                place = segment.index(axis)
                units = np.arange(sizes[axis]).reshape(sizes[by], -1).T.reshape(-1)
                numbers = np.take(numbers, units, axis=place)
        parts.append(start + numbers.reshape(-1))
        start += numbers.size
    return np.concatenate(parts)


def folded(shape: tuple[int, ...], weight: Weight) -> tuple[int, ...]:
    """A tensor's shape in a file, without the dimensions that the table says are 1: those of a convolution's groups."""
    if ((1,),) not in weight.dims:
        return shape
    return tuple(size for size, dim in zip(shape, weight.dims, strict=True) if dim != ((1,),))


def _has_thirds_inside(segment: Segment) -> bool:
    return 3 in segment and segment.index(3) > 0
