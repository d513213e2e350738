"""Reads the header of a GGUF file: its keys, and the position of each tensor. No weights are read.

The reader of the `gguf` package makes several arrays for every token: 17 s and 0.7 GB for the 262,144 tokens of
Gemma 3, which take 0.3 s here.
"""

from __future__ import annotations

import importlib.util
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, RecipeError
from prunus.llamacpp.parsing import ALIGNED, GgufTensor, Reader

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufFile:
    """The header of a file, or of all parts of a split file.

    Attributes:
        path: The file; of a split file the first part.
        keys: Its metadata.
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
    """Read the header of a GGUF file, and of its other parts if it is split.

    Raises:
        ModelError: It is not a GGUF file, is truncated or damaged, or a part is missing; names the file.
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
    expected = keys.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise ModelError(f"{path}: its parts have {len(tensors)} tensors, expected {expected} (split.tensors.count)")
    return GgufFile(path, keys, tensors, files)


def keys_as_written(path: Path) -> tuple[int, bytes, int]:
    """The keys of a file as stored: their number, their bytes, and the file's alignment.

    Raises:
        ModelError: As `read_gguf`.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(path, data)
        found, _ = reader.read()
        return len(found), data[reader.keys_at : reader.keys_end], int(found.get("general.alignment", ALIGNED))


def _parts(path: Path, keys: dict[str, Any], count: int) -> tuple[Path, ...]:
    """The parts of a split file, given the first one."""
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelError(
            f"{path}: one of {count} parts of a split file, but its name does not have the form "
            f"NAME-00001-of-{count:05d}.gguf, so the other parts cannot be found"
        )
    files = tuple(path.with_name(f"{match[1]}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1))
    if path != files[0] or keys.get("split.no", 0) != 0:
        raise ModelError(f"{path}: a later part of a split file; name the first one, {files[0].name}")
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(f"{path}: a split file of {count} parts, but {missing.name} is missing from its folder")
    return files


def _read_one(file: Path) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Reader(file, data).read()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    except struct.error:  # its message would only mention buffers
        raise ModelError(f"{file}: not a GGUF file of a language model, or truncated") from None
    except (ValueError, IndexError, OverflowError) as error:  # such as an empty file, or a truncated text
        raise ModelError(f"{file}: not a GGUF file of a language model, or truncated: {error}") from None
