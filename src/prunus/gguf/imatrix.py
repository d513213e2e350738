"""Importance matrices in llama.cpp's file format: sums of squares of the inputs of every matrix of the layers.

The format is that of llama.cpp's tools/imatrix/imatrix.cpp: for each tensor NAME of a model's file `NAME.in_sum2`
[E, C], and `NAME.counts` [E, 1]. `llama-quantize --imatrix` reads it.

C columns of a matrix, E experts of a stacked tensor (1 of others)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.errors import ModelError, RecipeError
from prunus.gguf.mixtures import may_shrink
from prunus.gguf.tensors import FileTensor
from prunus.gguf.writer import Matrix
from prunus.llamacpp.ggml import F32
from prunus.llamacpp.reading import read_gguf

_SQUARES, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Sums:
    """What was measured at one tensor.

    Attributes:
        squares: Σ x² of each column's inputs, [E, C].
        counts: The tokens summed over, [E].
    """

    squares: np.ndarray
    counts: np.ndarray


def weighted_columns(tensor: FileTensor) -> tuple[int, int] | None:
    """E and C of a tensor that has a place in an importance matrix; None for the others.

    As in llama.cpp, these are the matrices of the layers; embedding and LM head have none.
    """
    if not tensor.name.startswith("blk.") or not may_shrink(tensor.name, len(tensor.shape)):
        return None
    return tensor.shape[0] if len(tensor.shape) == 3 else 1, tensor.shape[-1]


def matrix_of(sums: Mapping[str, Sums]) -> Matrix:
    """The means of squares; 1 for every column of an expert that no token was routed to, as in `llama-quantize`."""
    found = {}
    for name, one in sums.items():
        counts = one.counts[:, None]
        found[name] = np.where(counts > 0, one.squares / np.maximum(counts, 1), 1).astype(np.float32)
    return found


def write_imatrix(sums: Mapping[str, Sums], chunks: int, length: int, file: Path) -> None:
    """Write an importance matrix.

    Args:
        sums: The sums by the tensors' names.
        chunks: The number of sequences that were read.
        length: Their length in tokens.
        file: The output file.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "")
    writer.kv_data[0].clear()  # the architecture, which such a file has not
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["corpus"])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", length)
    for name in sorted(sums):
        writer.add_tensor(name + _SQUARES, sums[name].squares.astype(np.float32))
        writer.add_tensor(name + _COUNTS, sums[name].counts.astype(np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(file: Path) -> dict[str, Sums]:
    """Read an importance matrix that `write_imatrix` or `llama-imatrix` wrote.

    Raises:
        ModelError: It is not such a file, is damaged, or holds impossible sums; names the file.
        RecipeError: The `gguf` package is not installed.
    """
    found = read_gguf(file)
    if found.keys.get("general.type") != "imatrix":
        kind = found.keys.get("general.type")
        raise ModelError(
            f"{file}: general.type is {kind!r:.40}; expected an importance matrix in GGUF, as `export --imatrix` and "
            "`llama-imatrix -o NAME.gguf` write it"
        )
    sums = {}
    for name, tensor in found.tensors.items():
        if not name.endswith(_SQUARES):
            continue
        own = name.removesuffix(_SQUARES)
        counted = found.tensors.get(own + _COUNTS)
        if counted is None or {tensor.kind, counted.kind} != {F32}:
            raise ModelError(f"{file}: {name} has no {own}{_COUNTS}, or one of them is not float32")
        counts = counted.stored().view(np.float32).flatten()
        squares = tensor.stored().view(np.float32).flatten()
        if squares.size % counts.size or not _possible(squares) or not _possible(counts):
            raise ModelError(
                f"{file}: {name} has {squares.size} sums and {counts.size} counts; expected finite numbers of at least "
                "0, and as many sums for each count"
            )
        sums[own] = Sums(squares.reshape(counts.size, -1), counts)
    if not sums:
        raise ModelError(f"{file}: an importance matrix without a tensor NAME{_SQUARES}")
    return sums


def _possible(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())


def check_imatrix(sums: Mapping[str, Sums], tensors: Sequence[FileTensor], where: str) -> None:
    """Refuse an importance matrix of another model.

    Args:
        sums: The matrix.
        tensors: The tensors of the model's file.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the first tensor that is missing or has other columns.
    """
    for tensor in tensors:
        expected = weighted_columns(tensor)
        if expected is None:
            continue
        found = sums[tensor.name].squares.shape if tensor.name in sums else None
        if found != expected:
            what = "is missing" if found is None else f"has {list(found)} sums"
            raise RecipeError(
                f"{where}: {tensor.name} {what}; expected {list(expected)} (experts, columns): the file belongs to "
                "another model. Allowed: one that was measured on this model, or imatrix: true"
            )
