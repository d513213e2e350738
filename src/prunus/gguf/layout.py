"""A tensor's rows in the order in which llama.cpp wants them.

Where the two differ, and how to get from one to the other, follows from the weight's line in the axis table:

    conv1d            [in, out] of GPT-2 is turned to [out, in]
    (heads head_dim)  of q and k, where pairs stand together: (heads 2 half) -> (heads half 2)
    (heads 3 head_dim) hidden, q, k, v of each head side by side: -> (3 heads head_dim)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunus.models.axes import Segment, Weight
from prunus.models.families.gguf import Gguf


def row_order(weight: Weight, name: str, there: Gguf, sizes: Mapping[str, int], conv1d: bool) -> np.ndarray | None:
    """The numbers of the rows (outputs, whichever dimension they are) in llama.cpp's order; None for as they are.

    Args:
        weight: The table's line.
        name: llama.cpp's name of it.
        there: How llama.cpp holds the family.
        sizes: Of every axis.
        conv1d: Whether outputs are the second dimension of a matrix.
    """
    outputs = weight.dims[-1 if conv1d and len(weight.dims) == 2 else 0]
    if len(outputs) != 1:  # fused from segments, which both keep in the same order
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


def _has_thirds_inside(segment: Segment) -> bool:
    return 3 in segment and segment.index(3) > 0
