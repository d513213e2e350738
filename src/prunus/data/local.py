"""Local files of rows: their format, their compression, and the position of a reader. A path is never a pattern."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from prunus.data.formats import Format, Row, csv_rows, json_lines, json_values, parquet_rows, text_documents
from prunus.errors import DataError
from prunus.files import LFS_POINTER

FORMATS: dict[str, Format] = {
    ".jsonl": json_lines, ".json": json_values, ".csv": csv_rows, ".parquet": parquet_rows, ".txt": text_documents
}  # fmt: skip
"""The reader for each file extension (case-insensitive)."""


def _open_zstd(file: BufferedReader) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


_COMPRESSIONS: tuple[tuple[bytes, Callable[[BufferedReader], Any]], ...] = (
    (rb"\x1f\x8b", gzip.open), (rb"BZh[1-9]1AY&SY", bz2.open), (rb"\xfd7zXZ\x00", lzma.open),
    (rb"\x28\xb5\x2f\xfd", _open_zstd),
)  # fmt: skip
"""The magic bytes of compressed files, and the function that opens each; the file's name does not matter."""


def local_file(path: str) -> Path | None:
    """The file at a path, if it exists: the path verbatim, else with `~` expanded."""
    for place in (path, os.path.expanduser(path)):
        if os.path.isfile(place):
            return Path(place)
    return None


class LocalRows:
    """The rows of a local file.

    Args:
        file: The file.
        where: Its name in messages.
        column: In a columnar file, read only this column, if it exists.
        reader: The format; derived from the file's extension if not given.

    Raises:
        DataError: The file's extension is unknown; while reading: the file does not match its extension.
    """

    def __init__(self, file: Path, where: str, column: str | None = None, reader: Format | None = None) -> None:
        self.file, self.where, self.column, self.row = file, where, column, 0
        self.format = reader or _format_of(file, where)

    def state_dict(self) -> dict[str, Any]:
        """The number of rows read."""
        return {"row": self.row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the rows already read."""
        self.row = state["row"]

    def __iter__(self) -> Iterator[Row]:
        with _as_data_errors(self.where), self.file.open("rb") as handle:
            for row in self.format(_unpacked(handle, self.where), self.where, self.row, self.column):
                self.row += 1
                yield row


def _format_of(file: Path, where: str) -> Format:
    endings = [suffix for suffix in map(str.lower, file.suffixes) if suffix in FORMATS]
    if not endings:
        raise DataError(f"{where}: unknown file extension; known: {', '.join(FORMATS)}, also compressed")
    return FORMATS[endings[-1]]


def _unpacked(handle: BufferedReader, where: str) -> BufferedReader:
    """The decompressed content of a file."""
    begins = handle.peek(len(LFS_POINTER))
    if not begins:
        raise DataError(f"{where}: the file is empty")
    if begins.startswith(LFS_POINTER.encode()):
        raise DataError(f"{where}: a git-lfs pointer, not the file itself; run `git lfs pull` in that folder")
    for magic, opened in _COMPRESSIONS:
        if re.match(magic, begins):
            return BufferedReader(opened(handle), 1 << 20)
    return handle


@contextmanager
def _as_data_errors(where: str) -> Iterator[None]:
    """Raise errors of the readers as `DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the errors of four decompressors and of pyarrow
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: cannot be read: {type(error).__name__}: {reason}") from None
