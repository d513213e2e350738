"""A GGUF file, written in one pass: header and keys by the `gguf` package, then one piece of one tensor at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.console import human
from prunus.errors import ArtifactError, ModelError
from prunus.gguf.metadata import gguf_of, model_keys
from prunus.gguf.mixtures import FILE_TYPES, Choice, choose
from prunus.gguf.tensors import FileTensor, plan_tensors, widened
from prunus.gguf.vocabulary import Vocabulary
from prunus.llamacpp import ggml
from prunus.models.folder import ModelFolder

Matrix = Mapping[str, np.ndarray]
"""An importance matrix: of each tensor by llama.cpp's name, [E, C] in float32, for each of its E experts (else 1) and
each column the mean square of the input that the column is multiplied by. The quantiser weights errors by it."""
ALIGNED = 32
"""Header and tensors are padded to a multiple of this many bytes."""
_STORED = {"F32": ggml.F32, "F16": ggml.F16, "BF16": ggml.BF16}


@dataclass(frozen=True)
class Written:
    """Summary of a written file.

    Attributes:
        nbytes: The file's size in bytes.
        tensors: Number of tensors.
        types: Number of tensors of each type.
        fallen_back: Tensors whose rows do not fit the format's preferred type.
        extra_bytes: Bytes that these take in addition, compared with the preferred type.
    """

    nbytes: int
    tensors: int
    types: dict[str, int]
    fallen_back: list[str]
    extra_bytes: int


def write_gguf(
    folder: ModelFolder,
    vocabulary: Vocabulary,
    format_name: str,
    file: Path,
    on_progress: Callable[[float], None] = lambda _: None,
    matrix: Matrix | None = None,
) -> Written:
    """Write a model as one GGUF file. The file gets its final name when it is complete.

    Args:
        folder: The model.
        vocabulary: Its tokenizer.
        format_name: Such as `gguf-q4_k_m`.
        file: The output file.
        on_progress: Called with the bytes of tensors written so far.
        matrix: The importance of columns, see `Matrix`.

    Raises:
        ArtifactError: The disk is too full.
        ModelError: A value is not finite, or too large for the type.
    """
    tensors, choices = plan_types(folder, format_name, matrix is not None)
    sizes = [tensor_bytes(tensor, choice.kind) for tensor, choice in zip(tensors, choices, strict=True)]
    free = shutil.disk_usage(file.parent).free
    if sum(sizes) > free:
        raise ArtifactError(f"{file}: the file needs {sum(sizes)} bytes, but the disk has {free} free")
    partial = file.with_name(file.name + ".partial")
    try:
        _write(partial, keys_of(folder, vocabulary, format_name), tensors, choices, sizes, matrix or {}, on_progress)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return _summary(tensors, choices, file)


def plan_types(folder: ModelFolder, format_name: str, weighted: bool = False) -> tuple[list[FileTensor], list[Choice]]:
    """The tensors of a file, and the type of each; `weighted` says whether there is an importance matrix."""
    tensors = plan_tensors(folder)
    choices = choose(
        format_name,
        [tensor.name for tensor in tensors],
        [tensor.shape[-1] for tensor in tensors],
        [len(tensor.shape) for tensor in tensors],
        folder.shape,
        weighted,
    )
    return tensors, choices


def keys_of(folder: ModelFolder, vocabulary: Vocabulary, format_name: str) -> dict[str, Any]:
    """The keys of the header: the model's dimensions and settings, and its tokenizer."""
    shape = folder.shape
    name = gguf_of(folder.family, str(folder.path)).architecture
    keys: dict[str, Any] = {
        "general.architecture": name,
        "general.type": "model",
        "general.name": _title(shape.family.name, vocabulary.tokens) + f" {human(shape.parameters)}",
        "general.size_label": human(shape.parameters),
        "general.file_type": np.uint32(FILE_TYPES[format_name]),
        "general.quantization_version": np.uint32(2),
    }
    keys |= {f"{name}.{key}": value for key, value in model_keys(folder.config, shape).items()}
    return keys | vocabulary.keys()


def _title(family: str, tokens: list[str]) -> str:
    """A family's name. llama.cpp expects Phi-3's special tokens in every file whose name contains `phi-3`."""
    if "Phi-3" not in family:
        return family
    has_tokens = {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(tokens)
    return family if has_tokens else family.replace("Phi-3", "Phi 3")


def _write(
    file: Path,
    keys: Mapping[str, Any],
    tensors: list[FileTensor],
    choices: list[Choice],
    sizes: list[int],
    matrix: Matrix,
    on_progress: Callable[[float], None],
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(file, keys["general.architecture"])
    for key, value in keys.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for tensor, choice, size in zip(tensors, choices, sizes, strict=True):
        raw = GGMLQuantizationType(choice.kind)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out, done = writer.fout[0], 0
    out.write(bytes(-out.tell() % ALIGNED))
    with ThreadPoolExecutor(ggml.workers()) as pool:
        for tensor, choice, size in zip(tensors, choices, sizes, strict=True):
            written = 0
            for encoded in _encoded(tensor, choice.kind, matrix.get(tensor.name), pool):
                written += out.write(encoded.data)
            if written != size:
                raise ModelError(f"{file}: {tensor.name} has {written} bytes, expected {size}")
            out.write(bytes(-size % ALIGNED))
            done += size
            on_progress(done)
    out.flush()
    os.fsync(out.fileno())
    writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, (int, np.integer)):
        writer.add_uint32(key, int(value))
    else:
        writer.add_array(key, value)


def _encoded(
    tensor: FileTensor, kind: int, importance: np.ndarray | None, pool: ThreadPoolExecutor
) -> Iterator[np.ndarray]:
    """The tensor's bytes in order, encoded by several threads a few pieces at a time."""

    def encode(part: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
        return encoded(part[0], tensor, kind, part[1])

    pieces = _weighted(tensor, importance)
    while together := list(islice(pieces, ggml.workers())):  # only these pieces are in memory
        yield from pool.map(encode, together)


def _weighted(tensor: FileTensor, importance: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The tensor's pieces, none of which has rows of two experts, each with the importance of its columns, [C]."""
    if importance is None:
        yield from ((piece, None) for piece in tensor.pieces())
        return
    rows, done = prod(tensor.shape[:-1]) // len(importance), 0
    for piece in tensor.pieces():
        start, end = done, done + len(piece)
        while done < end:
            last = min(end, (done // rows + 1) * rows)
            yield piece[done - start : last - start], importance[done // rows]
            done = last


def encoded(piece: np.ndarray, tensor: FileTensor, kind: int, importance: np.ndarray | None = None) -> np.ndarray:
    """Convert rows from the checkpoint's type to bytes of a ggml type.

    Args:
        piece: The rows, [N, C].
        tensor: The tensor that they belong to.
        kind: The type.
        importance: That of the columns, [C] in float32, if there is an importance matrix.

    Raises:
        ModelError: A value is not finite, or becomes infinite in the new type.
    """
    if tensor.untouched and _STORED.get(tensor.dtype) == kind:
        return piece.view(np.uint8)
    values = widened(piece)
    if not tensor.untouched:
        values = (values + np.float32(tensor.offset)) * np.float32(tensor.factor)
        values = -np.exp(values) if tensor.decay else values
    if kind == ggml.F32:
        return values.view(np.uint8)
    if kind == ggml.F16 and not np.abs(values).max(initial=0) < 65520:  # larger values round to infinity
        raise ModelError(
            f"{tensor.name}: a value is larger than float16 holds, or not finite; use gguf-bf16 or gguf-f32"
        )
    if kind in (ggml.F16, ggml.BF16):
        return in_half(values, kind).view(np.uint8)
    if not np.isfinite(values).all():
        raise ModelError(f"{tensor.name}: a value is not finite")
    if ggml.can_quantise():
        return ggml.quantise(np.ascontiguousarray(values), kind, importance)
    from gguf import GGMLQuantizationType, quants

    return quants.quantize(values, GGMLQuantizationType(kind))


def in_half(values: np.ndarray, kind: int) -> np.ndarray:
    """Float32 rounded to 16 bits, to nearest: by processor instructions if available, else by numpy."""
    narrowed = ggml.narrow(np.ascontiguousarray(values), kind)
    return narrowed if narrowed is not None else _narrowed(values, kind)


def _narrowed(values: np.ndarray, kind: int) -> np.ndarray:
    """`in_half` by numpy."""
    if kind == ggml.F16:
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def tensor_bytes(tensor: FileTensor, kind: int) -> int:
    """Bytes of a tensor in a type, without padding."""
    return prod(tensor.shape[:-1]) * ggml.row_bytes(kind, tensor.shape[-1])


def _summary(tensors: list[FileTensor], choices: list[Choice], file: Path) -> Written:
    types: dict[str, int] = {}
    fallen, extra = [], 0.0
    for tensor, choice in zip(tensors, choices, strict=True):
        types[ggml.NAMES[choice.kind]] = types.get(ggml.NAMES[choice.kind], 0) + 1
        if choice.kind != choice.preferred:
            fallen.append(tensor.name)
            values, size = ggml.BLOCKS[choice.preferred]
            extra += tensor_bytes(tensor, choice.kind) - prod(tensor.shape) * size / values
    return Written(file.stat().st_size, len(tensors), types, fallen, int(extra))


def format_label(format_name: str) -> str:
    """llama.cpp's usual name of a format, such as `Q4_K_M`."""
    return format_name.removeprefix("gguf-").upper()
