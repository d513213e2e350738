"""Cuts the student's tensors from the teacher's files, in pieces of bytes, without loading a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from math import prod

import numpy as np

from prunus.errors import ModelError
from prunus.models.axes import positions
from prunus.models.checkpoint import ITEM_BYTES, TensorInfo, TensorPlan
from prunus.models.families.family import Place
from prunus.models.shape import Shape
from prunus.models.values import from_float, is_finite, to_float
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.compensate import factor
from prunus.steps.prune.merge import Merged
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.rotate import Rotation, hidden_first, weight_rotation

PIECE_BYTES = 512 << 10  # read at a time: fits in the CPU's cache, so that checking the values costs little
_GAP = 64  # at most this many rows between two kept ones are read and dropped rather than skipped


def cut(
    tensors: Mapping[str, TensorInfo],
    teacher: Shape,
    target: Shape,
    keep: Keep,
    scores: Scores,
    rotation: Rotation | None = None,
    residual: float = 0.0,
    merged: Merged | None = None,
) -> list[TensorPlan]:
    """Plan every tensor of the student, in the order of the teacher's.

    Args:
        tensors: The teacher's tensors, by name.
        teacher: The teacher's shape.
        target: The student's shape.
        keep: The units to keep; all channels if there is a rotation.
        scores: The teacher's scores, for the factors of norms.
        rotation: The change of basis of the residual stream.
        residual: r in W + r (W - W'), for a query head W and its partner W'.
        merged: The experts that are merged.

    Returns:
        One plan for each tensor of the student; a tensor is read only when its pieces are requested.
    """
    plans = []
    for name, info in tensors.items():
        place = teacher.family.place(name)
        if place is None or not place.weight.exists(teacher.flags):
            continue  # a stored copy of a tied head, or an old buffer, which transformers ignores as well
        renamed = rename(place, teacher, keep)
        if renamed is not None:
            plans.append(_plan_of(renamed, info, place, teacher, target, keep, scores, rotation, residual, merged))
    return plans


def _plan_of(
    renamed: str,
    info: TensorInfo,
    place: Place,
    teacher: Shape,
    target: Shape,
    keep: Keep,
    scores: Scores,
    rotation: Rotation | None,
    residual: float,
    merged: Merged | None,
) -> TensorPlan:
    """Plan one tensor; of a tensor that holds a layer's experts, one expert after the other."""
    if place.weight.stacked:
        parts = [
            _plan_of(renamed, part, one, teacher, target, keep, scores, rotation, residual, merged)
            for part, one in _experts(info, place, keep)
        ]
        return TensorPlan(
            renamed,
            info.dtype,
            (len(parts), *parts[0].shape),
            lambda: chain.from_iterable(part.pieces() for part in parts),
        )
    kept = indices(place, teacher.sizes(), keep)
    factors = factor(place, teacher, target, scores, kept[0])
    offset = teacher.family.offset_of(place)
    read: Read = partial(_pieces, info, kept)
    if residual and keep.partners and produces_queries(place, teacher):
        others = indices(place, teacher.sizes(), replace(keep, layered=keep.layered | {"heads": keep.partners}))
        read = partial(_with_residual, info, kept, others, residual)
    if merged is not None and merged.changes(place):
        read = partial(merged.read, place, info, partial(keep.members, layer=place.layer, expert=place.expert))
    if rotation is not None and place.weight.has("hidden"):
        return _rotated(renamed, info, place, kept, factors, offset, rotation, read)
    return _plan(renamed, info, kept, factors, offset, read)


def _experts(info: TensorInfo, place: Place, keep: Keep) -> Iterator[tuple[TensorInfo, Place]]:
    """The parts of a stacked tensor that belong to the kept experts, as tensors of their own."""
    size = info.nbytes // info.shape[0]
    for expert in keep.members("experts", place.layer).tolist():
        part = replace(info, shape=info.shape[1:], data=info.data + expert * size)
        yield part, replace(place, weight=replace(place.weight, stacked=False), expert=expert)


def rename(place: Place, teacher: Shape, keep: Keep) -> str | None:
    """The weight's name in the student, or None if its layer or expert is dropped."""
    if place.layer is None:
        return teacher.family.name_of(place.key)
    if place.layer not in keep.layers:
        return None
    expert = place.expert
    if expert is not None:
        experts = keep.members("experts", place.layer).tolist()
        if expert not in experts:
            return None
        expert = experts.index(expert)
    return teacher.family.name_of(place.key, keep.layers.index(place.layer), expert)


def indices(place: Place, sizes: Mapping[str, int], keep: Keep) -> list[np.ndarray]:
    """The kept indices of each dimension of a weight."""
    return positions(place.weight, sizes, lambda axis: keep.members(axis, place.layer, place.expert))


Read = Callable[[], Iterator[bytes]]
"""Yields the bytes of the kept part of a tensor, in whole rows."""


def produces_queries(place: Place, teacher: Shape) -> bool:
    """Whether a weight or bias produces query heads; fused QKV projections do, norms do not."""
    outputs = place.weight.dims[teacher.family.outputs(place.weight)]
    is_norm = place.key.rpartition(".")[0] in teacher.family.norms[0]
    return not is_norm and any("heads" in segment for segment in outputs)


def _with_residual(
    info: TensorInfo, kept: list[np.ndarray], others: list[np.ndarray], residual: float
) -> Iterator[bytes]:
    """W + r (W - W'), where W' has the rows of the partner heads; the whole tensor in one piece."""
    whole = [np.arange(size) for size in info.shape]
    values = to_float(b"".join(_pieces(info, whole)), info.dtype).reshape(info.shape)
    heads, partners = (values[np.ix_(*positions)] for positions in (kept, others))
    yield from_float(heads + residual * (heads - partners), info.dtype)


def _plan(
    name: str, info: TensorInfo, kept: list[np.ndarray], factors: float | np.ndarray, offset: float, read: Read
) -> TensorPlan:
    shape = tuple(len(positions) for positions in kept)

    def pieces() -> Iterator[bytes]:
        raw = read()
        return raw if np.all(factors == 1.0) else _scaled(raw, info, shape, factors, offset)

    return TensorPlan(name, info.dtype, shape, pieces)


def _rotated(
    name: str,
    info: TensorInfo,
    place: Place,
    kept: list[np.ndarray],
    factors: float | np.ndarray,
    offset: float,
    rotation: Rotation,
    read: Read,
) -> TensorPlan:
    """Plan a weight in the rotated basis: in pieces of rows, or in one piece if its first dimension is rotated."""
    size = rotation.basis.shape[1]
    shape = tuple(size if dim == (("hidden",),) else len(kept[d]) for d, dim in enumerate(place.weight.dims))
    inner = tuple(len(positions) for positions in kept[1:])
    wide = np.float64 if info.dtype in ("F64", "F32") else np.float32

    def pieces() -> Iterator[bytes]:
        raw, rotate = read(), weight_rotation(place, rotation, wide)
        if hidden_first(place):
            raw = iter([b"".join(raw)])
        rows = np.broadcast_to(factors, (len(kept[0]),)).reshape(-1, *[1] * len(inner))
        done = 0
        for piece in raw:
            values = to_float(piece, info.dtype).reshape(-1, *inner)
            scaled = (values + offset) * rows[done : done + len(values)]
            done += len(values)
            yield from_float(rotate(scaled.astype(wide)) - offset, info.dtype)

    return TensorPlan(name, info.dtype, shape, pieces)


def _scaled(
    pieces: Iterator[bytes],
    info: TensorInfo,
    shape: tuple[int, ...],
    factors: float | np.ndarray,
    offset: float,
) -> Iterator[bytes]:
    """Multiply each row by its factor; `offset` is added before and subtracted after (gains stored as 1 + weight)."""
    rows = np.broadcast_to(factors, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
    done = 0
    for piece in pieces:
        values = to_float(piece, info.dtype).reshape(-1, *shape[1:])
        scaled = (values + offset) * rows[done : done + len(values)] - offset
        done += len(values)
        yield from_float(scaled, info.dtype)


def _pieces(info: TensorInfo, kept: list[np.ndarray]) -> Iterator[bytes]:
    """Read the kept rows in pieces, and the kept columns of each row.

    Raises:
        ModelError: A value is not finite, or an index is outside the tensor.
    """
    for axis, members in enumerate(kept):
        if len(members) and not 0 <= members.min() <= members.max() < info.shape[axis]:
            raise ModelError(
                f"{info.file}: dimension {axis} of {info.name} has size {info.shape[axis]}; indices {members.min()} to "
                f"{members.max()} cannot be kept"
            )
    item = np.dtype(f"V{ITEM_BYTES[info.dtype]}")  # raw bytes: values are only copied
    row_shape = info.shape[1:]
    row_bytes = prod(row_shape) * item.itemsize
    whole = all(len(positions) == size for positions, size in zip(kept[1:], row_shape, strict=True))
    longest = max(1, PIECE_BYTES // row_bytes)
    buffer = memoryview(bytearray(min(longest, info.shape[0]) * row_bytes))
    handle = os.open(info.file, os.O_RDONLY)
    try:
        for first, last, rows in _spans(kept[0], longest):
            data = buffer[: (last - first) * row_bytes]
            _read(handle, data, info.data + first * row_bytes, info)
            if not is_finite(data, info.dtype):
                raise ModelError(f"{info.file}: {info.name} holds NaN or infinity in rows {first} to {last - 1}")
            if whole and len(rows) == last - first:
                yield bytes(data)  # a copy: the buffer is reused, and callers may hold on to pieces
                continue
            block = np.frombuffer(data, dtype=item).reshape(last - first, *row_shape)
            if len(rows) < last - first:
                block = np.take(block, rows - first, axis=0)
            for axis, positions in enumerate(kept[1:], start=1):
                if len(positions) < block.shape[axis]:
                    block = np.take(block, positions, axis=axis)
            yield block.tobytes()
    finally:
        os.close(handle)


def _spans(positions: np.ndarray, longest: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cover ascending row indices by ranges `(first, last + 1, indices)` of at most `longest` rows.

    Up to `_GAP` rows between two indices are read as well: one long read costs less than two short ones.
    """
    start = 0
    while start < len(positions):
        stop = int(np.searchsorted(positions, positions[start] + longest))
        rows = positions[start:stop]
        gaps = np.flatnonzero(np.diff(rows) > _GAP) + 1
        for left, right in pairwise([0, *gaps.tolist(), len(rows)]):
            part = rows[left:right]
            yield int(part[0]), int(part[-1]) + 1, part
        start = stop


def _read(handle: int, into: memoryview, offset: int, info: TensorInfo) -> None:
    """Fill `into` from the file at `offset`; a single system call may read less."""
    done = 0
    while done < len(into):
        count = os.preadv(handle, [into[done:]], offset + done)
        if not count:
            raise ModelError(f"{info.file}: ends {len(into) - done} bytes before the end of {info.name}")
        done += count
