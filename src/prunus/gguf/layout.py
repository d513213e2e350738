"""The order of a tensor's rows in llama.cpp.

Where the order differs from transformers', the permutation follows from the weight's entry in the axis table:

    conv1d            [in, out] of GPT-2 is transposed to [out, in]
    (heads head_dim)  of q and k, if rotary pairs are adjacent in llama.cpp: (heads 2 half) -> (heads half 2)
    (heads 3 head_dim) hidden, with q, k, v of each head adjacent: -> (3 heads head_dim)
"""

from __future__ import annotations

from collections.abc import Mapping

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


def folded(shape: tuple[int, ...], weight: Weight) -> tuple[int, ...]:
    """A tensor's shape in a file, without the dimensions that the table says are 1: those of a convolution's groups."""
    if ((1,),) not in weight.dims:
        return shape
    return tuple(size for size, dim in zip(shape, weight.dims, strict=True) if dim != ((1,),))


def _has_thirds_inside(segment: Segment) -> bool:
    return 3 in segment and segment.index(3) > 0
