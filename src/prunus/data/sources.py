"""Reading rows, and the text in their columns, from files, from the hub, and from built-in sources."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from prunus.data.columns import COLUMNS
from prunus.data.config import Source, SourceRef
from prunus.data.formats import csv_rows
from prunus.data.local import FORMATS, LocalRows, local_file
from prunus.errors import DataError, HubError, PrunusError, among
from prunus.fingerprint import digest, fingerprint_files
from prunus.world.config import REVISION, WORLD, WorldConfig
from prunus.world.rows import check_rows
from prunus.world.rows import rows as world_rows

MAX_TEXT = 16 << 20
"""The most characters of a document; tokenising takes about a hundred bytes of memory per character."""
_CHAT = "; for conversations, set rows: chat"
_SAMPLED = 256  # first rows, from which the columns are determined
BUILTINS = ("builtin:python", WORLD)
_SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "__pycache__",
    "encodings",
}


def entries(source: Source, where: str) -> Iterator[Any]:
    """The values in the column of `source`, of any type, in order; see `Reader`."""
    return Reader(source, where).entries()


def rows(source: SourceRef, where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of `source` in order. Columns of the first rows that a row lacks, and empty CSV cells, are None.

    Raises:
        DataError: The source cannot be read.
        HubError: It cannot be fetched from the hub.
    """
    with _as_prunus_errors(source, where):
        opened = _open(source, where)
        blank = "" if isinstance(opened, LocalRows) and opened.format is csv_rows else None
        iterator = iter(opened)
        first = list(islice(iterator, _SAMPLED))
        columns = dict.fromkeys(name for row in first for name in row)
        for row in chain(first, iterator):
            yield {**columns, **{name: None if value == blank else value for name, value in row.items()}}


class Reader:
    """Reads a source row by row; can resume from a saved position.

    Args:
        source: The source.
        where: Its name in the recipe, for messages.
        state: The state of an earlier reader of the source, to resume from.

    Raises:
        DataError: The source cannot be read, or has no such column; also while reading.
        HubError: It cannot be fetched from the hub.
    """

    def __init__(self, source: Source, where: str, state: dict[str, Any] | None = None) -> None:
        self.source, self.where = source, where
        self.number = 0 if state is None else state["number"]
        with _as_prunus_errors(source, where):
            self.rows = _open(source, where, source.column if source.rows == "text" else None)
            if state is not None:
                self.rows.load_state_dict(state["rows"])

    @property
    def state(self) -> dict[str, Any]:
        """The position of the reader, as JSON values."""
        return {"number": self.number, "rows": self.rows.state_dict()}

    def documents(self) -> Iterator[str]:
        """The texts in the column that are not blank."""
        for text in self.entries():
            if isinstance(text, str) and not text.strip():
                continue
            what = f"{self.where}.column: {self.source.column!r} of {self.source.path}, row {self.number},"
            if not isinstance(text, str):
                raise DataError(f"{what} holds {type(text).__name__}, not text")
            if len(text) > MAX_TEXT:
                raise DataError(f"{what} has {len(text):,} characters; at most {MAX_TEXT:,} are read as one document")
            yield text

    def entries(self) -> Iterator[Any]:
        """The values in the column, of any type; None if a row after the first lacks it."""
        column = self.source.column
        for row in self.each_row():
            if self.number == 1 and column not in row:
                raise DataError(
                    f"{self.where}.column: {self.source.path} has no column {column!r}{among(column, row, 'it has')}"
                    f"{_CHAT if _is_chat(row) else ''}"
                )
            yield row.get(column)

    def each_row(self) -> Iterator[dict[str, Any]]:
        """The rows, which are counted."""
        with _as_prunus_errors(self.source, self.where):
            for row in self.rows:
                self.number += 1
                yield row


def _is_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row seems to hold a conversation."""
    roles = {role for role, names in COLUMNS.items() if any(row.get(name) is not None for name in names)}
    return "messages" in roles or {"prompt", "completion"} <= roles


def source_fingerprint(source: SourceRef, where: str) -> str:
    """A digest of a source's content: a local file's bytes, a hub dataset's commit, Python's version."""
    if source.path == "builtin:python":
        return digest([source.path, sys.version])
    if source.path == WORLD:
        return digest([source.path, source.name, source.split, REVISION])
    file = local_file(source.path)
    if file is not None:
        return fingerprint_files([file])
    return digest([source.path, source.name, source.split, _hub_commit(source, where)])


def sources_fingerprint(sources: Sequence[SourceRef], where: str) -> str:
    """A digest of the content of several sources, and of the options that decide how each is read."""
    return digest([[source.identity(), source_fingerprint(source, f"{where}.{i}")] for i, source in enumerate(sources)])


def is_in(part: str, text: str, fraction: float) -> bool:
    """Whether a document belongs to a part of the text; see `TokensConfig.part`.

    The document's hash decides, so that equal texts are in the same part.
    """
    value = _unit_hash(text)
    if part == "ranking":
        return fraction <= value < 2 * fraction
    if part == "recovery":
        return value >= 2 * fraction
    return part == "all" or (value < fraction) == (part == "held_out")


def _unit_hash(text: str) -> float:
    """A document's hash, mapped to [0, 1)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


@contextmanager
def _as_prunus_errors(source: SourceRef, where: str) -> Iterator[None]:
    """Raise errors of hub datasets as `HubError`; local files raise only Prunus's errors."""
    try:
        yield
    except PrunusError:
        raise
    except StopIteration:
        raise DataError(f"{where}: {source.path} holds no text") from None
    except Exception as error:  # `datasets` and its readers raise many types
        raise HubError(f"{where}: {source.path} cannot be read: {type(error).__name__}: {error}") from None


class _Generated:
    """Rows generated while they are read."""

    def __init__(self, generator: Iterator[dict[str, Any]]) -> None:
        self.generator, self.row = generator, 0

    def state_dict(self) -> dict[str, Any]:
        return {"row": self.row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.row = state["row"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in islice(self.generator, self.row, None):
            self.row += 1
            yield row


def _open(source: SourceRef, where: str, column: str | None = None) -> Any:
    """The rows of a source, with `state_dict` and `load_state_dict` as in `datasets`."""
    if source.path == "builtin:python":
        return _Generated(_python_rows(column or "text"))
    if source.path == WORLD:
        check_rows(source.name, source.split, where)
        return _Generated(world_rows(source.world or WorldConfig(), source.name, source.split))
    file = local_file(source.path)
    if file is not None:
        return LocalRows(file, f"{where}: {source.path}", column)
    _refuse_missing_file(source, where)
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # otherwise it reports each load to Hugging Face
    return datasets.load_dataset(source.path, source.name, split=source.split, revision=source.revision, streaming=True)


def _refuse_missing_file(source: SourceRef, where: str) -> None:
    path = source.path
    local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if path.startswith("builtin:"):
        raise DataError(f"{where}: unknown {path!r}{among(path, BUILTINS)}")
    if os.path.isdir(os.path.expanduser(path)):
        raise DataError(f"{where}: {path} is a folder; expected a file")
    if local or any(path.lower().endswith(ending) for ending in FORMATS):
        raise DataError(f"{where}: there is no file {path}")


def _hub_commit(source: SourceRef, where: str) -> str:
    _refuse_missing_file(source, where)
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(source.path, revision=source.revision).sha)
    except Exception as error:  # no network, no such dataset, no access: the client's message says which
        raise HubError(
            f"{where}: {source.path} is not a local file and cannot be fetched from the hub: {error}"
        ) from None


def _python_rows(column: str) -> Iterator[dict[str, str]]:
    """The documentation and source code in Python's installation: its language reference, then its modules."""
    if importlib.util.find_spec("pydoc_data.topics"):
        from pydoc_data.topics import topics

        yield from ({column: text} for text in topics.values())
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if not _SKIPPED & set(file.relative_to(library).parts) and "pydoc_data" not in file.parts:
            yield {column: file.read_text(encoding="utf-8", errors="replace")}
