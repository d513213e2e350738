"""Reading and writing safetensors as streams of bytes: headers, then one piece of one tensor at a time.

The format: 8 bytes of header length (little-endian), a JSON header of `{name: {dtype, shape, data_offsets}}`, then
the tensors' bytes (https://github.com/huggingface/safetensors, "Format"). Pruning only moves bytes, so nothing here
needs torch, and at most one piece is in memory at a time.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prunus.errors import ArtifactError, ModelError
from prunus.models.foreign import describe_no_weights
from prunus.models.texts import is_pointer, read_model_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ITEM_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits per value of each dtype in the format."""

ITEM_BYTES = {dtype: bits // 8 for dtype, bits in ITEM_BITS.items() if bits % 8 == 0}
"""Bytes per value of each dtype with whole bytes."""

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
"""The dtypes that weights may have: torch's name, as in config.json, to the format's name."""

MAX_SHARD_BYTES = 5_000_000_000
MAX_TENSORS = 300_000
"""The most tensors of a checkpoint: twice as many as the largest mixtures of experts have; listing takes seconds."""

_PIECE_BYTES = 4 << 20
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")  # a file next to the index: no path that leads out of the folder


@dataclass(frozen=True)
class TensorInfo:
    """The location of a tensor: `data` is its offset in `file`, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    data: int

    @property
    def nbytes(self) -> int:
        """The tensor's size in bytes."""
        return prod(self.shape) * ITEM_BITS[self.dtype] // 8


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written: its header entry and the source of its bytes.

    `pieces` yields the bytes in order. Each piece owns its memory, so that all of them can be collected and joined.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[bytes]]

    @property
    def nbytes(self) -> int:
        """The size in bytes that the pieces must add up to."""
        return prod(self.shape) * ITEM_BITS[self.dtype] // 8


def read_tensors(folder: Path) -> dict[str, TensorInfo]:
    """List every tensor that transformers would read from a checkpoint, sharded or not; reads only headers.

    Transformers reads model.safetensors if it exists, else all tensors in the shards of the index; of a tensor in two
    shards, the later one.

    Raises:
        ModelError: There are no safetensors weights, or both forms at once; a file is truncated or not safetensors; the
            index names a missing shard or tensor; there are more than `MAX_TENSORS`.
    """
    index, single = folder / INDEX, folder / WEIGHTS
    if not index.is_file():
        if not single.is_file():
            raise ModelError(f"{folder}: {describe_no_weights(folder)}")
        return {info.name: info for info in read_header(single)}
    weight_map = _weight_map(index)
    shards = sorted(set(weight_map.values()))
    if single.is_file() and shards != [WEIGHTS]:
        raise ModelError(
            f"{folder}: holds {WEIGHTS} and an {INDEX} of other files ({', '.join(shards[:2])}, ...): two saves in one "
            f"folder. Transformers reads {WEIGHTS}; remove the index and its shards, or that file"
        )
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        if not (folder / shard).is_file():
            raise ModelError(f"{folder}: {INDEX} names the shard {shard}, which is missing")
        tensors |= {info.name: info for info in read_header(folder / shard)}
        _check_count(len(tensors), folder)
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise ModelError(f"{folder}: {INDEX} names {missing[0]} (and {len(missing) - 1} more) that no shard holds")
    return {name: tensors[name] for name in dict.fromkeys([*weight_map, *tensors])}


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one safetensors file, in the order of their bytes.

    The safetensors library reads and checks the header, so that the same files are refused. It allows neither gaps nor
    overlaps: a tensor starts where the one before it ends.

    Raises:
        ModelError: The file is truncated or not safetensors, or it has more than `MAX_TENSORS`.
    """
    if is_pointer(file):
        raise ModelError(f"{file}: a git-lfs pointer, not the file itself; run `git lfs pull` in that folder")
    entries: list[TensorInfo] = []
    try:
        with safe_open(file, framework="numpy") as opened:
            names = opened.offset_keys()
            _check_count(len(names), file)
            place = _data_start(file)
            for name in names:
                entry = opened.get_slice(name)
                info = TensorInfo(name, entry.get_dtype(), tuple(entry.get_shape()), file, place)
                entries.append(info)
                place += info.nbytes
    except (SafetensorError, OSError, KeyError) as error:
        size = file.stat().st_size
        raise ModelError(f"{file}: not a safetensors file, or cut short, at {size} bytes: {error}") from None
    return entries


def read_bytes(info: TensorInfo) -> bytes:
    """All bytes of one tensor; for small tensors."""
    with info.file.open("rb") as handle:
        handle.seek(info.data)
        return handle.read(info.nbytes)


def read_pieces(info: TensorInfo) -> Iterator[bytes]:
    """The bytes of one tensor, in pieces."""
    with info.file.open("rb") as handle:
        handle.seek(info.data)
        for start in range(0, info.nbytes, _PIECE_BYTES):
            yield handle.read(min(_PIECE_BYTES, info.nbytes - start))


def read_rows(info: TensorInfo, rows: Iterable[int]) -> bytes:
    """The bytes of some rows of one tensor, in the given order."""
    size = info.nbytes // info.shape[0]
    with info.file.open("rb") as handle:
        return b"".join(os.pread(handle.fileno(), size, info.data + row * size) for row in rows)


def same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    """Whether two tensors have the same dtype, shape and bytes; compares piece by piece."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(one == other for one, other in zip(read_pieces(first), read_pieces(second), strict=True))


def write_tensors(
    folder: Path,
    plans: list[TensorPlan],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write a checkpoint in transformers' layout: one file, or shards and their index.

    Args:
        folder: The folder to write.
        plans: The tensors, in order.
        max_shard_bytes: The largest size of a file with several tensors.
        on_progress: Called after each tensor with the bytes written so far.

    Raises:
        ArtifactError: The disk has too little space.
        ModelError: A tensor's pieces do not add up to its shape.
    """
    needed, free = sum(plan.nbytes for plan in plans), shutil.disk_usage(folder).free
    if needed > free:
        raise ArtifactError(f"{folder}: the disk has {free} bytes free, and the weights need {needed}")
    shards = _into_shards(plans, max_shard_bytes)
    done = 0.0

    def written(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done)

    if len(shards) == 1:
        _write_file(folder / WEIGHTS, shards[0], written)
        return
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    weight_map: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, written)
        weight_map |= {plan.name: name for plan in shard}
    index = {"metadata": {"total_size": sum(plan.nbytes for plan in plans)}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _data_start(file: Path) -> int:
    with file.open("rb") as handle:
        return 8 + int.from_bytes(handle.read(8), "little")


def _check_count(count: int, where: Path) -> None:
    if count > MAX_TENSORS:
        raise ModelError(f"{where}: {count} tensors; at most {MAX_TENSORS} are read")


def _weight_map(index: Path) -> dict[str, str]:
    """The index's map of tensors to shards; transformers requires `metadata` in the index, too."""
    contents = read_model_json(index)
    for key in ("weight_map", "metadata"):
        if not isinstance(contents.get(key), dict):
            raise ModelError(f"{index}: not an index of shards: {key} is {contents.get(key)!r:.80}; expected an object")
    weight_map: dict[str, str] = contents["weight_map"]
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ModelError(f"{index}: {name!r:.120} is to be in {shard!r:.80}, which is no file name of a shard")
    return weight_map


def _into_shards(plans: list[TensorPlan], limit: int) -> list[list[TensorPlan]]:
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for plan in plans:
        if shards[-1] and size + plan.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(plan)
        size += plan.nbytes
    return shards


def _write_file(file: Path, plans: list[TensorPlan], on_written: Callable[[int], None]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for plan in plans:
        header[plan.name] = {"dtype": plan.dtype, "shape": plan.shape, "data_offsets": [offset, offset + plan.nbytes]}
        offset += plan.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, as in the reference implementation
    with file.open("wb", buffering=0) as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for plan in plans:
            written = sum(_write_all(handle, piece) for piece in plan.pieces())
            if written != plan.nbytes:
                raise ModelError(f"{file}: {plan.name} came to {written} bytes, not {plan.nbytes}")
            on_written(written)
        os.fsync(handle.fileno())


def _write_all(handle: io.RawIOBase, piece: bytes) -> int:
    """Write a whole piece, with several calls if one writes only a part."""
    view = memoryview(piece)
    while view:
        view = view[handle.write(view) or 0 :]
    return len(piece)
