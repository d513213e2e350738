"""Comparison of artifacts with their records: by checksums, computed again only for files that changed since."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunus.checkpoints import CLAIM
from prunus.checkpoints import FOLDER as CHECKPOINTS
from prunus.console import Console
from prunus.errors import ArtifactError
from prunus.files import read_object, replace_json
from prunus.fingerprint import checksum
from prunus.graph.records import RECORD, read_record, remedy, seal

CARD = "README.md"
_MEMORY = ".verified"
_TEXT = (".json", ".jsonl")
_FRESH_NS = 100_000_000  # a file may change again within one tick of the file system's clock
_SHOWN_FROM = 1 << 30  # bytes from which reading takes long enough to show its progress

Stamp = list[int]
"""Size in bytes, mtime and ctime in ns, and inode number."""


class Memory:
    """The files of an artifact that were verified, and their stamps at that time.

    Stored in `.verified` in the parent folder; not stored if that is read-only.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder.parent / _MEMORY / f"{folder.name}.json"
        self.known: dict[str, Any] = {}
        with suppress(ArtifactError):
            self.known = read_object(self.file, ArtifactError)

    def holds(self, name: str, xxh3: str, stamp: Stamp | None) -> bool:
        """Whether a file with this stamp was verified to have this checksum."""
        return stamp is not None and self.known.get(name) == [xxh3, *stamp]

    def keep(self, record: Mapping[str, Any], stamps: Mapping[str, Stamp | None], read_at: int) -> None:
        """Store that files of an artifact are verified.

        Args:
            record: The artifact's record.
            stamps: The files' stamps, taken before they were read.
            read_at: That time, in ns. Files changed just before it are left out: a second change within one tick of
                the clock would not show.
        """
        old = {name: stamp for name, stamp in stamps.items() if stamp and max(stamp[1:3]) < read_at - _FRESH_NS}
        known = {name: facts for name, facts in self.known.items() if name not in stamps}
        known |= {name: [record["files"][name]["xxh3"], *stamp] for name, stamp in old.items()}
        known[RECORD] = seal(record)
        if known != self.known:
            with suppress(OSError):
                self.file.parent.mkdir(exist_ok=True)
                replace_json(self.file, known)


def check_artifact(folder: Path, console: Console, text_only: bool = False) -> None:
    """Compare the files of a finished artifact with its record; verified files that did not change are skipped.

    Args:
        folder: The artifact; a folder without a record is skipped.
        console: Shows the progress if there is much to read.
        text_only: Compare only JSON and JSON Lines, not weights.

    Raises:
        ArtifactError: A file is missing or damaged; the message names it, and says what to remove.
    """
    record = read_record(folder)
    if record is None:
        return
    memory, read_at, files = Memory(folder), time.time_ns(), record["files"]
    names = [name for name in files if not text_only or name.endswith(_TEXT)]
    stamps = {name: _stamp(folder / name) for name in names}
    unknown = [name for name in names if not memory.holds(name, files[name]["xxh3"], stamps[name])]
    if not unknown and memory.known.get(RECORD) == seal(record):
        return
    for problem in damages(folder, record, console, unknown):
        raise ArtifactError(f"{problem}; {remedy(folder)}")
    memory.keep(record, stamps, read_at)


def remember(folder: Path, record: Mapping[str, Any]) -> None:
    """Store that an artifact's files are verified, right after its record was made from them."""
    Memory(folder).keep(record, {name: _stamp(folder / name) for name in record["files"]}, time.time_ns())


def damages(folder: Path, record: Mapping[str, Any], console: Console, names: list[str] | None = None) -> Iterator[str]:
    """Read all files of an artifact, and yield a message for each that is missing or damaged.

    Args:
        folder: The artifact.
        record: Its record.
        console: Shows the progress if there is much to read.
        names: The files to read; all by default.
    """
    if record.get("seal", seal(record)) != seal(record):
        yield f"{folder / RECORD}: damaged: its own checksum differs"
    files = record["files"]
    names = list(files) if names is None else names
    total = sum(files[name]["bytes"] for name in names)
    with (console if total >= _SHOWN_FROM else Console(quiet=True)).progress("verify", total, "bytes") as progress:
        done = 0
        for name in names:
            problem = _damage(folder / name, files[name])
            if problem:
                yield problem
            done += files[name]["bytes"]
            progress.update(done)


def unexpected(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """The files in an artifact that its record does not name, except model cards and leftovers of a kill."""
    result = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_dir() or str(name) in record["files"] or name.name == CARD or name.parts[0] == CHECKPOINTS:
            continue
        if str(name) not in (RECORD, CLAIM):
            result.append(str(name))
    return result


def _damage(file: Path, facts: Mapping[str, Any]) -> str | None:
    """A message if the file is missing or damaged, else None."""
    if not file.is_file():
        return f"{file}: missing"
    size = file.stat().st_size
    if size != facts["bytes"]:
        return f"{file}: {size} bytes; recorded: {facts['bytes']}"
    try:
        actual = checksum(file)
    except OSError as error:
        return f"{file}: cannot be read: {error.strerror or error}"
    if actual != facts["xxh3"]:
        return f"{file}: damaged: its checksum is {actual}; recorded: {facts['xxh3']}"
    return None


def _stamp(file: Path) -> Stamp | None:
    try:
        facts = os.stat(file)
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
