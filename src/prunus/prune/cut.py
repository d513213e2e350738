"""The cut: each tensor of the student as a stream of pieces of the teacher's bytes. No model is ever built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import prod

import numpy as np

from prunus.models.axes import Weight
from prunus.models.checkpoint import ITEM_BYTES, TensorInfo, TensorPlan
from prunus.models.shape import Shape
from prunus.prune.choose import Keep

_PIECE_BYTES = 16 << 20  # read at a time


def cut(tensors: Mapping[str, TensorInfo], teacher: Shape, keep: Keep) -> list[TensorPlan]:
    """Plan every tensor of the student, in the order of the teacher's.

    Args:
        tensors: The teacher's, by name.
        teacher: Its shape.
        keep: What stays.

    Returns:
        One plan for each weight that stays; nothing is read before its pieces are asked for.
    """
    numbers = {old: new for new, old in enumerate(keep.layers)}
    plans = []
    for name, info in tensors.items():
        found = teacher.family.weight(name)
        if found is None or not found[0].exists(teacher.flags):
            continue  # a stored copy of a tied head, or an old buffer: loaders drop it as well
        weight, layer = found
        if layer is not None and layer not in numbers:
            continue
        renamed = name if layer is None else teacher.family.renumber(name, numbers[layer])
        plans.append(_plan(renamed, info, indices(weight, teacher.sizes(), keep, layer)))
    return plans


def indices(weight: Weight, sizes: Mapping[str, int], keep: Keep, layer: int | None) -> list[np.ndarray]:
    """For each dimension of a weight the positions that stay.

    A dimension that is a product of axes, such as (heads head_dim), keeps the product of what its axes keep.
    """
    result = []
    for axes in weight.dims:
        positions = np.zeros(1, dtype=np.int64)
        for axis in axes:
            positions = (positions[:, None] * sizes[axis] + keep.members(axis, layer)[None, :]).reshape(-1)
        result.append(positions)
    return result


def _plan(name: str, info: TensorInfo, kept: list[np.ndarray]) -> TensorPlan:
    shape = tuple(len(positions) for positions in kept)
    return TensorPlan(name, info.dtype, shape, lambda: _pieces(info, kept))


def _pieces(info: TensorInfo, kept: list[np.ndarray]) -> Iterator[bytes]:
    """Read the rows that stay, run by run, and of each row the columns that stay."""
    item = np.dtype(f"V{ITEM_BYTES[info.dtype]}")  # opaque: a cut never looks at a value
    row_shape = info.shape[1:]
    row_bytes = prod(row_shape) * item.itemsize
    whole = all(len(positions) == size for positions, size in zip(kept[1:], row_shape, strict=True))
    handle = os.open(info.file, os.O_RDONLY)
    try:
        for first, last in _runs(kept[0], max(1, _PIECE_BYTES // row_bytes)):
            data = _read(handle, (last - first) * row_bytes, info.data + first * row_bytes)
            if not whole:
                block = np.frombuffer(data, dtype=item).reshape(last - first, *row_shape)
                for axis, positions in enumerate(kept[1:], start=1):
                    block = np.take(block, positions, axis=axis)
                data = block.tobytes()
            yield data
    finally:
        os.close(handle)


def _runs(positions: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """Split ascending positions into half-open ranges without gaps, none longer than `longest`."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    for left, right in pairwise([0, *breaks.tolist(), len(positions)]):
        for start in range(left, right, longest):
            stop = min(start + longest, right)
            yield int(positions[start]), int(positions[stop - 1]) + 1


def _read(handle: int, count: int, offset: int) -> bytes:
    """Read exactly `count` bytes; one call may return fewer."""
    data = os.pread(handle, count, offset)
    while len(data) < count:
        more = os.pread(handle, count - len(data), offset + len(data))
        if not more:
            raise OSError(f"the file ends {count - len(data)} bytes early")
        data += more
    return data
