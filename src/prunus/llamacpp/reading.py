"""A GGUF file read as far as its header: keys, and where each tensor lies. No weight is touched.

The format is that of https://github.com/ggml-org/ggml, docs/gguf.md. The `gguf` package has a reader of its own, which
makes several arrays for every token: 17 s and 0.7 GB for the 262,144 tokens of Gemma 3, where this takes half a second.
"""

from __future__ import annotations

import importlib.util
import mmap
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError, RecipeError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_ALIGNED = 32  # where general.alignment does not say otherwise
_MOST_DIMENSIONS = 4
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        name: llama.cpp's.
        kind: ggml's number of its type.
        type_name: ggml's name of it, such as `Q4_K`.
        shape: Rows last but one, their length last.
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
        """Its rows as they are stored, [rows, bytes of one]; read from the disk where they are looked at."""
        return np.memmap(self.file, np.uint8, "r", self.start, (self.rows, self.row_bytes))


@dataclass(frozen=True)
class GgufFile:
    """A file's header, or those of all parts of a split one.

    Attributes:
        path: The file; of a split one the first.
        keys: What it says of itself.
        tensors: Its tensors by name.
        files: All parts.
    """

    path: Path
    keys: dict[str, Any]
    tensors: dict[str, GgufTensor]
    files: tuple[Path, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the family."""
        return str(self.keys.get("general.architecture", ""))


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file, and those of its other parts where it is split.

    Raises:
        ModelError: It is none, is cut short or damaged, or a part is missing; names the file.
        RecipeError: The `gguf` package is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise RecipeError(f"{path}: reading GGUF files needs the gguf package; `pip install 'prunus[gguf]'`")
    keys, tensors = _read_one(path)
    count = keys.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return GgufFile(path, keys, tensors, (path,))
    files = _parts(path, keys, count)
    for file in files[1:]:
        _, more = _read_one(file)
        twice = next((name for name in more if name in tensors), None)
        if twice is not None:
            raise ModelError(f"{file}: has the tensor {twice}, which an earlier part has too")
        tensors |= more
    wanted = keys.get("split.tensors.count", len(tensors))
    if wanted != len(tensors):
        raise ModelError(f"{path}: its parts have {len(tensors)} tensors, and it says that there are {wanted}")
    return GgufFile(path, keys, tensors, files)


def keys_as_written(path: Path) -> tuple[int, bytes, int]:
    """The keys of a file as they stand in it: how many, their bytes, and what places are multiples of.

    Raises:
        ModelError: As `read_gguf`.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(path, data)
        found, _ = reader.read()
        return len(found), data[reader.keys_at : reader.keys_end], int(found.get("general.alignment", _ALIGNED))


def _parts(path: Path, keys: dict[str, Any], count: int) -> tuple[Path, ...]:
    """The files of a split one, which is named by its first."""
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelError(
            f"{path}: one of {count} parts of a split file, and not named as such (NAME-00001-of-{count:05d}.gguf), so "
            "that the others are not found"
        )
    files = tuple(path.with_name(f"{match[1]}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1))
    if path != files[0] or keys.get("split.no", 0) != 0:
        raise ModelError(f"{path}: a later part of a split file; name the first one, {files[0].name}")
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(f"{path}: a split file of {count} parts, and {missing.name} is not beside it")
    return files


def _read_one(file: Path) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(file, data).read()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, struct.error, IndexError, OverflowError) as error:  # an empty file, a number or text cut off
        raise ModelError(f"{file}: no GGUF file of a language model, or one that is cut short: {error}") from None


class _Reader:
    """Goes through a header from its start."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 0
        self.keys_at = self.keys_end = 0  # where the keys stand

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        magic, version = self.data[:4], struct.unpack_from("<I", self.data, 4)[0]
        if magic != _MAGIC:
            raise ModelError(f"{self.file}: no GGUF file of a language model: it begins with {magic!r}, not {_MAGIC!r}")
        if version not in _VERSIONS:
            what = "of a machine of the other byte order" if version & 0xFFFF == 0 else f"of version {version}"
            raise ModelError(f"{self.file}: a GGUF file {what}; read are versions 2 and 3, little-endian")
        self.at = 8
        tensors, keys = self.number("<Q"), self.number("<Q")
        found: dict[str, Any] = {}
        self.keys_at = self.at
        for _ in range(self.possible(keys, 12)):
            key = self.text()
            if key in found:
                raise ModelError(f"{self.file}: has the key {key!r:.80} twice")
            found[key] = self.value(self.number("<I"))
        self.keys_end = self.at
        infos = [self.info() for _ in range(self.possible(tensors, 24))]
        aligned = found.get("general.alignment", _ALIGNED)
        if not isinstance(aligned, int) or aligned < 1:
            raise ModelError(f"{self.file}: general.alignment is {aligned!r:.40}; expected a power of two")
        start = self.at + -self.at % aligned
        placed = [self.placed(*info, start) for info in infos]
        named = {tensor.name: tensor for tensor in placed}
        if len(named) < len(placed):
            raise ModelError(f"{self.file}: has two tensors of one name")
        return found, named

    def possible(self, count: int, least: int) -> int:
        """A number of things of at least so many bytes, if the file has room for them."""
        if count * least > len(self.data) - self.at:
            raise ValueError(f"it names {count} entries at byte {self.at} of {len(self.data)}")
        return count

    def number(self, kind: str) -> Any:
        value = struct.unpack_from(kind, self.data, self.at)[0]
        self.at += struct.calcsize(kind)
        return value

    def text(self) -> str:
        length = self.possible(self.number("<Q"), 1)
        value = self.data[self.at : self.at + length]
        self.at += length
        return value.decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(self.number("<I"))
        if kind not in _SCALARS:
            raise ValueError(f"type {kind} of a value at byte {self.at}")
        return self.number(_SCALARS[kind])

    def array(self, kind: int) -> list[Any]:
        count = self.number("<Q")
        if kind == _STRING:
            return [self.text() for _ in range(self.possible(count, 8))]
        if kind not in _SCALARS:
            raise ValueError(f"type {kind} of a list at byte {self.at}")
        size = struct.calcsize(_SCALARS[kind])
        values = np.frombuffer(self.data, _SCALARS[kind], self.possible(count, size), self.at).tolist()
        self.at += count * size
        return values

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, its shape with the rows' length last, the number of its type, and its place."""
        name = self.text()
        count = self.number("<I")
        if not 1 <= count <= _MOST_DIMENSIONS:
            raise ModelError(f"{self.file}: {name!r:.80} has {count} dimensions; expected 1 to {_MOST_DIMENSIONS}")
        shape = tuple(self.number("<Q") for _ in range(count))[::-1]
        return name, shape, self.number("<I"), self.number("<Q")

    def placed(self, name: str, shape: tuple[int, ...], kind: int, offset: int, start: int) -> GgufTensor:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            known = GGMLQuantizationType(kind)
        except ValueError:
            raise ModelError(
                f"{self.file}: {name!r:.80} is of ggml's type {kind}, which this gguf package does not know; a newer "
                "one may: `pip install --upgrade gguf`"
            ) from None
        values, size = GGML_QUANT_SIZES[known]
        if shape[-1] % values or 0 in shape:
            raise ModelError(f"{self.file}: {name!r:.80} is {list(shape)}; rows of {known.name} are blocks of {values}")
        tensor = GgufTensor(name, kind, known.name, shape, self.file, start + offset, shape[-1] // values * size)
        if tensor.start + tensor.nbytes > len(self.data):
            raise ModelError(
                f"{self.file}: cut short: {name!r:.80} ends at byte {tensor.start + tensor.nbytes}, and the file has "
                f"{len(self.data)}"
            )
        return tensor
