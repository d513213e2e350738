"""Parser of the header of one GGUF file; errors on damaged files name the file.

The format is that of https://github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError

ALIGNED = 32
"""Default alignment of tensors in bytes, if general.alignment is not set."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's type, shape and position in the file.

    Attributes:
        name: llama.cpp's name.
        kind: ggml's number of its type.
        type_name: ggml's name of its type, such as `Q4_K`.
        shape: Its shape, [..., rows, columns].
        file: The file, or the part of a split one.
        start: Bytes from the file's start.
        row_bytes: Bytes of one row.
    """

    name: str
    kind: int
    type_name: str
    shape: tuple[int, ...]
    file: Path
    start: int
    row_bytes: int

    @property
    def rows(self) -> int:
        """All rows, of all experts."""
        return prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.rows * self.row_bytes

    def stored(self) -> np.ndarray:
        """Its rows as stored, [rows, row bytes]; memory-mapped."""
        return np.memmap(self.file, np.uint8, "r", self.start, (self.rows, self.row_bytes))


class Reader:
    """Reads a header from its start."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 0
        self.keys_at = self.keys_end = 0  # where the keys begin and end

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        """The keys, and the tensors by name.

        Raises:
            ModelError: It is not a GGUF file, or has impossible values.
            ValueError: It is truncated.
        """
        magic, version = self.data[:4], struct.unpack_from("<I", self.data, 4)[0]
        if magic != _MAGIC:
            raise ModelError(
                f"{self.file}: not a GGUF file of a language model: it begins with {magic!r}, expected {_MAGIC!r}"
            )
        if version not in _VERSIONS:
            swapped = version and version & 0xFFFF == 0
            what = "it is big-endian" if swapped else f"version {version}"
            raise ModelError(f"{self.file}: {what} of GGUF is not supported; allowed: versions 2 and 3, little-endian")
        self.at = 8
        tensors, keys = self._number("<Q"), self._number("<Q")
        found: dict[str, Any] = {}
        self.keys_at = self.at
        for _ in range(self._possible(keys, 12)):
            key = self._text()
            if key in found:
                raise ModelError(f"{self.file}: has the key {key!r:.80} twice")
            found[key] = self._value(self._number("<I"))
        self.keys_end = self.at
        infos = [self._info() for _ in range(self._possible(tensors, 24))]
        aligned = found.get("general.alignment", ALIGNED)
        if not isinstance(aligned, int) or aligned < 1:
            raise ModelError(f"{self.file}: general.alignment is {aligned!r:.40}; expected a power of two")
        start = self.at + -self.at % aligned
        placed = [self._placed(*info, start) for info in infos]
        named = {tensor.name: tensor for tensor in placed}
        if len(named) < len(placed):
            raise ModelError(f"{self.file}: has two tensors of one name")
        return found, named

    def _possible(self, count: int, least: int) -> int:
        """`count`, if the rest of the file can hold that many entries of at least `least` bytes."""
        if count * least > len(self.data) - self.at:
            raise ValueError(f"it names {count} entries at byte {self.at} of {len(self.data)}")
        return count

    def _number(self, kind: str) -> Any:
        value = struct.unpack_from(kind, self.data, self.at)[0]
        self.at += struct.calcsize(kind)
        return value

    def _text(self) -> str:
        length = self._possible(self._number("<Q"), 1)
        value = self.data[self.at : self.at + length]
        self.at += length
        return value.decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(self._number("<I"))
        if kind not in _SCALARS:
            raise ValueError(f"type {kind} of a value at byte {self.at}")
        return self._number(_SCALARS[kind])

    def _array(self, kind: int) -> list[Any]:
        count = self._number("<Q")
        if kind == _STRING:
            return [self._text() for _ in range(self._possible(count, 8))]
        if kind not in _SCALARS:
            raise ValueError(f"type {kind} of a list at byte {self.at}")
        size = struct.calcsize(_SCALARS[kind])
        values = np.frombuffer(self.data, _SCALARS[kind], self._possible(count, size), self.at).tolist()
        self.at += count * size
        return values

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, shape [..., rows, columns], type number and offset."""
        name = self._text()
        count = self._number("<I")
        if not 1 <= count <= _MOST_DIMENSIONS:
            raise ModelError(f"{self.file}: {name!r:.80} has {count} dimensions; expected 1 to {_MOST_DIMENSIONS}")
        shape = tuple(self._number("<Q") for _ in range(count))[::-1]
        return name, shape, self._number("<I"), self._number("<Q")

    def _placed(self, name: str, shape: tuple[int, ...], kind: int, offset: int, start: int) -> GgufTensor:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            known = GGMLQuantizationType(kind)
        except ValueError:
            raise ModelError(
                f"{self.file}: {name!r:.80} has ggml's type {kind}, which the installed gguf package does not "
                "know; try `pip install --upgrade gguf`"
            ) from None
        values, size = GGML_QUANT_SIZES[known]
        if shape[-1] % values or 0 in shape:
            raise ModelError(
                f"{self.file}: {name!r:.80} has shape {list(shape)}; {known.name} needs rows in multiples of {values}"
            )
        tensor = GgufTensor(name, kind, known.name, shape, self.file, start + offset, shape[-1] // values * size)
        if tensor.start + tensor.nbytes > len(self.data):
            raise ModelError(
                f"{self.file}: truncated: {name!r:.80} ends at byte {tensor.start + tensor.nbytes}, but the file has "
                f"{len(self.data)}"
            )
        return tensor
