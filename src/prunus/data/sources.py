"""Reading text, document by document, from files, from the hub, and from Python itself."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunus.data.config import Place, Source
from prunus.errors import DataError, HubError, nearest
from prunus.fingerprint import digest, fingerprint_files
from prunus.world.config import REVISION, WORLD, WorldConfig
from prunus.world.rows import check_rows
from prunus.world.rows import rows as world_rows

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
"""Endings of local files, and the reader of `datasets` for each."""

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


def documents(source: Source, where: str) -> Iterator[str]:
    """The text of each document of `source`, in order.

    Args:
        source: What to read.
        where: The source's name in the recipe, such as `data.corpus.0`, for messages.

    Raises:
        DataError: The source cannot be read, or has no such column.
        HubError: It is on the hub, which does not give it.
    """
    return Reader(source, where).documents()


def entries(source: Source, where: str) -> Iterator[Any]:
    """Whatever the column of `source` holds, row by row, in order; see `Reader`."""
    return Reader(source, where).entries()


def rows(source: Place, where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of `source` as they are, in order.

    Raises:
        DataError: The source cannot be read.
        HubError: It is on the hub, which does not give it.
    """
    with _told(source, where):
        yield from _open(source, where)


class Reader:
    """A source as it is read, row by row, which knows how far it is.

    Args:
        source: What to read.
        where: Its name in the recipe, for messages.
        place: Where another reader of it was, to go on from there.

    Raises:
        DataError: The source cannot be read, or has no such column; also while it is read.
        HubError: It is on the hub, which does not give it.
    """

    def __init__(self, source: Source, where: str, place: dict[str, Any] | None = None) -> None:
        self.source, self.where = source, where
        with _told(source, where):
            self.rows = _open(source, where)
            if place is not None:
                self.rows.load_state_dict(place)

    @property
    def place(self) -> dict[str, Any]:
        """How far it is, as `datasets` says it: plain values that JSON takes."""
        return self.rows.state_dict()

    def documents(self) -> Iterator[str]:
        """The texts that hold anything."""
        source, where = self.source, self.where
        for text in self.entries():
            if not isinstance(text, str):
                kind = type(text).__name__
                raise DataError(f"{where}.column: {source.column!r} of {source.path} holds {kind}, not text")
            if text.strip():
                yield text

    def entries(self) -> Iterator[Any]:
        """Whatever the column holds."""
        source = self.source
        with _told(source, self.where):
            for row in self.rows:
                if source.column not in row:
                    raise DataError(
                        f"{self.where}.column: {source.path} has no column {source.column!r}"
                        f"{nearest(source.column, row)}; it has: {', '.join(row)}"
                    )
                yield row[source.column]


def check_source(source: Source, where: str) -> None:
    """Read one document, so that a wrong path or column is found before any work.

    Raises:
        DataError: The source cannot be read, is empty, or has no such column.
    """
    if next(documents(source, where), None) is None:
        raise DataError(f"{where}: {source.path} holds no text")


def source_fingerprint(source: Place, where: str) -> str:
    """A digest of what the source holds: a local file's bytes, a hub dataset's commit, Python's version."""
    if source.path == "builtin:python":
        return digest([source.path, sys.version])
    if source.path == WORLD:
        return digest([source.path, source.name, source.split, REVISION])
    file = Path(source.path).expanduser()
    if file.is_file():
        return fingerprint_files([file])
    return digest([source.path, source.name, source.split, _hub_commit(source, where)])


def sources_fingerprint(sources: Sequence[Place], where: str) -> str:
    """A digest of what several sources hold and how each is read."""
    return digest([[source.identity(), source_fingerprint(source, f"{where}.{i}")] for i, source in enumerate(sources)])


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document falls on the held-out side: decided by its own hash, so equal texts stay on one side."""
    return _place_of(text) < fraction


def is_in(part: str, text: str, fraction: float) -> bool:
    """Whether a document belongs to a part of the text, as `TokensConfig.part` names them."""
    place = _place_of(text)
    if part == "ranking":
        return fraction <= place < 2 * fraction
    if part == "recovery":
        return place >= 2 * fraction
    return part == "all" or (place < fraction) == (part == "held_out")


def _place_of(text: str) -> float:
    """Where a document's hash falls between 0 and 1."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


@contextmanager
def _told(source: Place, where: str) -> Iterator[None]:
    """Say in our words what reading raises."""
    try:
        yield
    except DataError:
        raise
    except StopIteration:
        raise DataError(f"{where}: {source.path} holds no text") from None
    except Exception as error:  # `datasets` and its readers raise many kinds, each with its own words
        kind = DataError if Path(source.path).expanduser().is_file() else HubError
        raise kind(f"{where}: {source.path} cannot be read: {type(error).__name__}: {error}") from None


def _open(source: Place, where: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    if source.path == "builtin:python":
        column = getattr(source, "column", "text")
        return datasets.IterableDataset.from_generator(_python_rows, gen_kwargs={"column": column})
    if source.path == WORLD:
        check_rows(source.name, source.split, where)
        options = {"config": source.world or WorldConfig(), "name": source.name, "split": source.split}
        return datasets.IterableDataset.from_generator(world_rows, gen_kwargs=options)
    file = Path(source.path).expanduser()
    if file.is_file():
        ending = [suffix for suffix in file.suffixes if suffix in READERS]
        if not ending:
            raise DataError(f"{where}.path: {source.path}: cannot tell its format; known: {', '.join(READERS)}")
        options = {"sample_by": "document"} if ending[-1] == ".txt" else {}
        return datasets.load_dataset(
            READERS[ending[-1]], data_files=str(file), split="train", streaming=True, **options
        )
    _refuse_missing_file(source, where)
    return datasets.load_dataset(source.path, source.name, split=source.split, revision=source.revision, streaming=True)


def _refuse_missing_file(source: Place, where: str) -> None:
    local = source.path.startswith((".", "/", "~")) or source.path.count("/") > 1
    if source.path.startswith("builtin:"):
        raise DataError(
            f"{where}.path: unknown {source.path!r}{nearest(source.path, BUILTINS)}; there are: {', '.join(BUILTINS)}"
        )
    if Path(source.path).expanduser().is_dir():
        raise DataError(f"{where}.path: {source.path} is a folder; name the files in it")
    if local or any(source.path.endswith(ending) for ending in READERS):
        raise DataError(f"{where}.path: there is no file {source.path}")


def _hub_commit(source: Place, where: str) -> str:
    _refuse_missing_file(source, where)
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(source.path, revision=source.revision).sha)
    except Exception as error:  # no network, no such dataset, no right to it: the hub's client says which
        raise HubError(f"{where}.path: {source.path} is no local file, and the hub does not give it: {error}") from None


def _python_rows(column: str) -> Iterator[dict[str, str]]:
    """The documentation and the source that every Python carries: its language reference, then its modules."""
    if importlib.util.find_spec("pydoc_data.topics"):
        from pydoc_data.topics import topics

        yield from ({column: text} for text in topics.values())
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if not _SKIPPED & set(file.relative_to(library).parts) and "pydoc_data" not in file.parts:
            yield {column: file.read_text(encoding="utf-8", errors="replace")}
