"""The cut: each tensor of the student as a stream of pieces of the teacher's bytes. No model is ever built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
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
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.rotate import Rotation, hidden_first, turning

PIECE_BYTES = 512 << 10  # read at a time: within the cache, so that looking at values costs little
_GAP = 64  # rows that are read along rather than jumped over


def cut(
    tensors: Mapping[str, TensorInfo],
    teacher: Shape,
    target: Shape,
    keep: Keep,
    scores: Scores,
    rotation: Rotation | None = None,
    residual: float = 0.0,
) -> list[TensorPlan]:
    """Plan every tensor of the student, in the order of the teacher's.

    Args:
        tensors: The teacher's, by name.
        teacher: Its shape.
        target: The student's shape.
        keep: What stays.
        scores: The teacher's, for what norms must make up for.
        rotation: The change of basis of the residual stream, of which `keep` then names all channels.
        residual: What the difference between a query head and its partner is multiplied by before it is added.

    Returns:
        One plan for each weight that stays; nothing is read before its pieces are asked for.
    """
    plans = []
    for name, info in tensors.items():
        place = teacher.family.place(name)
        if place is None or not place.weight.exists(teacher.flags):
            continue  # a stored copy of a tied head, or an old buffer: loaders drop it as well
        renamed = rename(place, teacher, keep)
        if renamed is not None:
            kept = indices(place, teacher.sizes(), keep)
            factors = factor(place, teacher, target, scores, kept[0])
            offset = teacher.family.offset_of(place)
            read: Read = partial(_pieces, info, kept)
            if residual and keep.partners and gives_queries(place, teacher):
                others = indices(place, teacher.sizes(), replace(keep, layered=keep.layered | {"heads": keep.partners}))
                read = partial(_with_residual, info, kept, others, residual)
            if rotation is not None and place.weight.has("hidden"):
                plans.append(_rotated(renamed, info, place, kept, factors, offset, rotation, read))
            else:
                plans.append(_plan(renamed, info, kept, factors, offset, read))
    return plans


def rename(place: Place, teacher: Shape, keep: Keep) -> str | None:
    """The weight's name in the student, or None where its layer or its expert goes."""
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
    """For each dimension of a weight the positions that stay."""
    return positions(place.weight, sizes, lambda axis: keep.members(axis, place.layer, place.expert))


Read = Callable[[], Iterator[bytes]]
"""Gives the bytes of what stays of a tensor, row by row."""


def gives_queries(place: Place, teacher: Shape) -> bool:
    """Whether a weight or bias makes query heads: those that make keys and values with them count, norms do not."""
    outputs = place.weight.dims[teacher.family.outputs(place.weight)]
    is_norm = place.key.rpartition(".")[0] in teacher.family.norms[0]
    return not is_norm and any("heads" in segment for segment in outputs)


def _with_residual(
    info: TensorInfo, kept: list[np.ndarray], others: list[np.ndarray], residual: float
) -> Iterator[bytes]:
    """W + r (W - W'), for W' the same rows of the heads' partners: the whole tensor at once."""
    whole = [np.arange(size) for size in info.shape]
    values = to_float(b"".join(_pieces(info, whole)), info.dtype).reshape(info.shape)
    mine, theirs = (values[np.ix_(*positions)] for positions in (kept, others))
    yield from_float(mine + residual * (mine - theirs), info.dtype)


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
    """A weight in another basis: row by row where its rows are read from the stream, else the whole of it at once."""
    size = rotation.basis.shape[1]
    shape = tuple(size if dim == (("hidden",),) else len(kept[d]) for d, dim in enumerate(place.weight.dims))
    inner = tuple(len(positions) for positions in kept[1:])
    wide = np.float64 if info.dtype in ("F64", "F32") else np.float32

    def pieces() -> Iterator[bytes]:
        raw, turned = read(), turning(place, rotation, wide)
        if hidden_first(place):
            raw = iter([b"".join(raw)])
        rows = np.broadcast_to(factors, (len(kept[0]),)).reshape(-1, *[1] * len(inner))
        done = 0
        for piece in raw:
            values = to_float(piece, info.dtype).reshape(-1, *inner)
            scaled = (values + offset) * rows[done : done + len(values)]
            done += len(values)
            yield from_float(turned(scaled.astype(wide)) - offset, info.dtype)

    return TensorPlan(name, info.dtype, shape, pieces)


def _scaled(
    pieces: Iterator[bytes],
    info: TensorInfo,
    shape: tuple[int, ...],
    factors: float | np.ndarray,
    offset: float,
) -> Iterator[bytes]:
    """Multiply each row by its factor; a gain that is stored less `offset` is multiplied whole."""
    rows = np.broadcast_to(factors, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
    done = 0
    for piece in pieces:
        values = to_float(piece, info.dtype).reshape(-1, *shape[1:])
        scaled = (values + offset) * rows[done : done + len(values)] - offset
        done += len(values)
        yield from_float(scaled, info.dtype)


def _pieces(info: TensorInfo, kept: list[np.ndarray]) -> Iterator[bytes]:
    """Read the rows that stay, piece by piece, and of each row the columns that stay.

    Raises:
        ModelError: A value is not finite, or a row or column is none of the tensor's.
    """
    for axis, members in enumerate(kept):
        if len(members) and not 0 <= members.min() <= members.max() < info.shape[axis]:
            raise ModelError(
                f"{info.file}: {info.name} has {info.shape[axis]} members along dimension {axis}; "
                f"{members.min()} to {members.max()} cannot be kept"
            )
    item = np.dtype(f"V{ITEM_BYTES[info.dtype]}")  # opaque: gathering never looks at a value
    row_shape = info.shape[1:]
    row_bytes = prod(row_shape) * item.itemsize
    whole = all(len(positions) == size for positions, size in zip(kept[1:], row_shape, strict=True))
    longest = max(1, PIECE_BYTES // row_bytes)
    buffer = memoryview(bytearray(min(longest, info.shape[0]) * row_bytes))
    handle = os.open(info.file, os.O_RDONLY)
    try:
        for first, last, wanted in _spans(kept[0], longest):
            data = buffer[: (last - first) * row_bytes]
            _read(handle, data, info.data + first * row_bytes, info)
            if not is_finite(data, info.dtype):
                raise ModelError(f"{info.file}: {info.name} holds NaN or infinity in rows {first} to {last - 1}")
            if whole and len(wanted) == last - first:
                yield bytes(data)  # a copy: the buffer is filled again, and whoever takes pieces may keep them
                continue
            block = np.frombuffer(data, dtype=item).reshape(last - first, *row_shape)
            if len(wanted) < last - first:
                block = np.take(block, wanted - first, axis=0)
            for axis, positions in enumerate(kept[1:], start=1):
                if len(positions) < block.shape[axis]:
                    block = np.take(block, positions, axis=axis)
            yield block.tobytes()
    finally:
        os.close(handle)


def _spans(positions: np.ndarray, longest: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cover ascending positions by ranges of at most `longest` rows, each with the positions that it is read for.

    Rows between two positions are read along where they are few: one long read costs less than two short ones.
    """
    start = 0
    while start < len(positions):
        stop = int(np.searchsorted(positions, positions[start] + longest))
        wanted = positions[start:stop]
        gaps = np.flatnonzero(np.diff(wanted) > _GAP) + 1
        for left, right in pairwise([0, *gaps.tolist(), len(wanted)]):
            part = wanted[left:right]
            yield int(part[0]), int(part[-1]) + 1, part
        start = stop


def _read(handle: int, into: memoryview, offset: int, info: TensorInfo) -> None:
    """Fill `into`; one call may read less."""
    done = 0
    while done < len(into):
        count = os.preadv(handle, [into[done:]], offset + done)
        if not count:
            raise ModelError(f"{info.file}: ends {len(into) - done} bytes before the end of {info.name}")
        done += count
