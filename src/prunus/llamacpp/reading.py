"""A GGUF file read as far as its header: keys, and where each tensor lies. No weight is touched.

The `gguf` package has a reader of its own, which makes several arrays for every token: 17 s and 0.7 GB for the 262,144
tokens of Gemma 3, where this takes 0.3 s.
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
        reader = Reader(path, data)
        found, _ = reader.read()
        return len(found), data[reader.keys_at : reader.keys_end], int(found.get("general.alignment", ALIGNED))


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
            return Reader(file, data).read()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    except struct.error:  # whose words are of buffers
        raise ModelError(f"{file}: no GGUF file of a language model, or one that is cut short") from None
    except (ValueError, IndexError, OverflowError) as error:  # an empty file, a text cut off
        raise ModelError(f"{file}: no GGUF file of a language model, or one that is cut short: {error}") from None
