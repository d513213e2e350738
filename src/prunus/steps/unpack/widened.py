"""A GGUF file with the same keys and its values in float32, to separate errors from rounding of activations.

With quantised weights, llama.cpp also rounds activations. With the same values in float32 and the same keys, it
computes as exactly as it can: the folder, exported again, must give the same logits.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prunus.errors import ArtifactError
from prunus.llamacpp import ggml
from prunus.llamacpp.parsing import GgufTensor
from prunus.llamacpp.reading import GgufFile, keys_as_written
from prunus.steps.unpack.narrowing import narrowed
from prunus.steps.unpack.positions import FACTORS
from prunus.steps.unpack.tensors import numbers

_ALIGNED = 32
_PIECE = 1 << 20  # values that are converted at a time


def write_widened(
    source: GgufFile, file: Path, dtype: str, offset: float, on_progress: Callable[[float], None] = lambda _: None
) -> None:
    """Write the file.

    Args:
        source: The original file; not a split one, whose parts llama.cpp would look for.
        file: The output file.
        dtype: The dtype that values are rounded to first, as in the folder.
        offset: The offset that the folder's norm gains leave out; they are rounded without it.
        on_progress: Called with the bytes of tensors written so far.

    Raises:
        ArtifactError: The disk is too full.
    """
    needed, free = 4 * sum(tensor.rows * tensor.shape[-1] for tensor in source.tensors.values()), _free(file)
    if needed > free:
        raise ArtifactError(f"{file}: the file needs {needed} bytes, but the disk has {free} free")
    count, keys, aligned = keys_as_written(source.path)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(source.tensors), count) + keys
    aligned, place = max(aligned, _ALIGNED), 0
    for tensor in source.tensors.values():
        name = tensor.name.encode()
        shape = tensor.shape[::-1]
        head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", ggml.F32, place)
        size = 4 * tensor.rows * tensor.shape[-1]
        place += size + -size % aligned
    with file.open("wb") as out:
        out.write(head + bytes(-len(head) % aligned))
        for tensor in source.tensors.values():
            gain = offset if len(tensor.shape) == 1 and tensor.name.endswith(".weight") else 0.0
            for piece in _pieces(tensor, "float32" if tensor.name in FACTORS else dtype, gain):
                out.write(piece)
            out.write(bytes(-out.tell() % aligned))
            on_progress(out.tell())


def _pieces(tensor: GgufTensor, dtype: str, gain: float) -> Iterator[bytes]:
    stored, rows = tensor.stored(), max(1, _PIECE // tensor.shape[-1])
    for start in range(0, len(stored), rows):
        raw = narrowed(numbers(tensor, np.asarray(stored[start : start + rows])) - np.float32(gain), dtype, tensor)
        yield (_wide(raw, dtype) + np.float32(gain)).tobytes()


def _wide(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return np.left_shift(np.frombuffer(raw, np.uint16), 16, dtype=np.uint32).view(np.float32)
    return np.frombuffer(raw, np.float16 if dtype == "float16" else np.float32).astype(np.float32)


def _free(file: Path) -> int:
    return shutil.disk_usage(file.parent).free
