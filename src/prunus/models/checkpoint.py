"""Safetensors in and out as streams of bytes: headers first, then one piece of one tensor at a time.

The format: 8 bytes of header length (little-endian), a JSON header of `{name: {dtype, shape, data_offsets}}`, then
the tensors' bytes (https://github.com/huggingface/safetensors, "Format"). Cutting only moves bytes, so nothing here
needs torch, and no more than one piece is in memory at any time.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from prunus.errors import ArtifactError, ModelError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Bytes of one value of each type the format knows."""

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
"""The format's name of each type that transformers names in config.json."""

MAX_SHARD_BYTES = 5_000_000_000
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")  # beside the index: no path leads out of the folder
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `data` counts bytes from the start of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    data: int

    @property
    def nbytes(self) -> int:
        """The tensor's size in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written: its header entry, and where its bytes come from.

    `pieces` gives them in order. Each piece owns its memory, so that all of them can be collected and joined.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[bytes]]

    @property
    def nbytes(self) -> int:
        """The size that the pieces must add up to."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def read_tensors(folder: Path) -> dict[str, TensorInfo]:
    """List every tensor of a checkpoint, one file or sharded, reading headers alone.

    Raises:
        ModelError: There are no safetensors weights, a file is truncated or is not safetensors, or the index names
            a shard or a tensor that is not there.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / WEIGHTS).is_file():
            raise ModelError(_no_weights(folder))
        return {info.name: info for info in read_header(folder / WEIGHTS)}
    tensors: dict[str, TensorInfo] = {}
    weight_map = _weight_map(index)
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise ModelError(f"{folder}: {INDEX} names the shard {shard}, which is not there")
        tensors |= {info.name: info for info in read_header(folder / shard)}
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise ModelError(f"{folder}: {INDEX} names {missing[0]} (and {len(missing) - 1} more) that no shard holds")
    return {name: tensors[name] for name in weight_map}


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises:
        ModelError: The file is truncated, or is not safetensors.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ModelError(f"{file}: not a safetensors file, or cut short, at {size} bytes")
        try:
            header = json.loads(handle.read(length))
            entries = [
                _entry(file, name, value, 8 + length) for name, value in header.items() if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file}: its header cannot be read as safetensors: {error}") from None
    for info in entries:
        if info.data + info.nbytes > size:
            raise ModelError(f"{file}: cut short: {info.name} ends at byte {info.data + info.nbytes} of {size}")
    return sorted(entries, key=lambda info: info.data)


def read_bytes(info: TensorInfo) -> bytes:
    """All bytes of one tensor: for the few that are small and looked at whole."""
    with info.file.open("rb") as handle:
        handle.seek(info.data)
        return handle.read(info.nbytes)


def write_tensors(
    folder: Path,
    plans: list[TensorPlan],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write a checkpoint as transformers lays it out: one file, or shards and their index.

    Args:
        folder: Where to.
        plans: The tensors, in order.
        max_shard_bytes: A file is closed before it grows over this.
        on_progress: Is told the bytes written so far, after each tensor.

    Raises:
        ArtifactError: The disk has no room for them.
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
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _entry(file: Path, name: str, value: Mapping[str, Any], base: int) -> TensorInfo:
    start, end = value["data_offsets"]
    info = TensorInfo(name, value["dtype"], tuple(value["shape"]), file, base + start)
    if info.dtype not in ITEM_BYTES:
        raise ValueError(f"{name} has the unknown type {info.dtype}")
    if start < 0 or end - start != info.nbytes:
        raise ValueError(f"{name} is {info.nbytes} bytes by its shape and {end - start} by its offsets")
    return info


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index}: not an index of shards: {error}") from None
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ModelError(f"{index}: {name!r} is to be in {shard!r:.80}, which is no file name of a shard")
    return weight_map


def _no_weights(folder: Path) -> str:
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    if pickles:
        return (
            f"{folder}: its weights are pickled ({pickles[0]}), which can run code; convert them once with "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    return f"{folder}: there are no weights: neither {WEIGHTS} nor {INDEX}"


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
    text += b" " * (-len(text) % 8)  # so that every tensor starts on a multiple of 8, as the reference writes it
    with file.open("wb", buffering=0) as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for plan in plans:
            written = sum(_write_all(handle, piece) for piece in plan.pieces())
            if written != plan.nbytes:
                raise ModelError(f"{file}: {plan.name} came to {written} bytes, not {plan.nbytes}")
            on_written(written)
        os.fsync(handle.fileno())


def _write_all(handle: io.RawIOBase, piece: bytes) -> int:
    """Write a whole piece; one call may take less of it."""
    view = memoryview(piece)
    while view:
        view = view[handle.write(view) or 0 :]
    return len(piece)
