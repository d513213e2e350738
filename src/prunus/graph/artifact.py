"""Artifact folders: made under another name, recorded last, then put in place, so that what stands there is whole.

What a kill can leave, and what the next start makes of it (`recover`):

    NAME.partial, no record      work under way: taken up if it is the same work
    NAME.partial with a record   a finished result: renamed
    NAME with a record           a finished result; a claim and checkpoints in it are left over, and are removed

So a result is made in the order: record, rename, removal of claim and checkpoints; and it is taken up again in the
order: claim, rename, removal of the record.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.checkpoints import CLAIM
from prunus.checkpoints import FOLDER as CHECKPOINTS
from prunus.errors import ArtifactError
from prunus.files import read_object, remove_unfinished, replace_json, sync
from prunus.fingerprint import checksum
from prunus.graph.integrity import remember
from prunus.graph.records import HOLES, RECORD, other_settings, read_record, remedy, seal


@dataclass(frozen=True)
class Artifact:
    """A result folder, there or yet to come.

    Attributes:
        path: Where it stands when it is finished.
        key: 8 hex digits over all that decides its content.
    """

    path: Path
    key: str

    @property
    def partial(self) -> Path:
        """Where it is made."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def record(self) -> dict[str, Any] | None:
        """Its record, or None where it is not finished.

        Raises:
            ArtifactError: The record cannot be read, or is of other work.
        """
        record = read_record(self.path)
        if record is None:
            if self.path.exists() and not (self.path.is_dir() and _is_empty(self.path)):
                raise ArtifactError(f"{self.path}: exists, and is not a result of Prunus; choose another place for it")
            return None
        if record["key"] != self.key:
            raise other_settings(self.path, record)
        return record

    def is_done(self) -> bool:
        """Whether the result is there, with every file that its record names at its recorded size.

        Raises:
            ArtifactError: A file is missing or of another size.
        """
        record = self.record
        if record is None:
            return False
        for name, facts in record["files"].items():
            file = self.path / name
            if not _has_size(file, facts):
                raise ArtifactError(f"{file}: missing or not {facts['bytes']} bytes; {remedy(self.path)}")
        return True

    def has_holes(self) -> bool:
        """Whether it is there, but lacks what a judge did not say."""
        record = self.record
        return record is not None and _has_holes(record)

    def is_whole(self) -> bool:
        """Whether it is there and lacks nothing."""
        return self.is_done() and not self.has_holes()

    def has_begun(self) -> bool:
        """Whether an earlier run left it unfinished.

        The claim says whose work a folder is; where there is none that can be read, the folder's name may.
        """
        if not self.partial.is_dir():
            return False
        return self._claim().get("key", self._key_of_name()) == self.key

    def recover(self) -> None:
        """Bring what a kill left to one of two states: finished and in place, or unfinished.

        Raises:
            ArtifactError: The record cannot be read, or a result of other settings is in the way.
        """
        if self.record is not None:
            self._tidy()
        elif (record := self._finished_in_partial()) is not None:
            self._put_in_place(record)

    def begin(self) -> Path:
        """Make the folder to work in, or take up the one that a killed run of the same work left."""
        if not self.has_begun():
            self._clear_partial()
            self.partial.mkdir(parents=True)
        if self._claim().get("key") != self.key:
            replace_json(self.partial / CLAIM, {"key": self.key})
        (self.partial / RECORD).unlink(missing_ok=True)  # of a result that lost files, or that is taken up again
        return self.partial

    def reopen(self) -> None:
        """Take a finished result up again, to go on from what is in it."""
        self._clear_partial()
        replace_json(self.path / CLAIM, {"key": self.key, "reopened": True})
        self.path.rename(self.partial)
        self.begin()

    def abandon(self) -> None:
        """Remove what a failed step left, unless there is something in it to go on from."""
        kept = any(self.partial.glob(f"{CHECKPOINTS}/*/complete")) or self._claim().get("reopened")
        if not kept:
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, with the size and checksum of every file, and put the folder in place.

        Checkpoints go last, and stay where a judge left holes, since the answers to be judged are among them.

        Raises:
            ArtifactError: A figure is not finite.
            OSError: The disk is full or fails; the work is kept, to be finished by the next start.
        """
        remove_unfinished(self.partial)
        (self.partial / RECORD).unlink(missing_ok=True)
        results = self._results(_has_holes(record))
        if (self.partial / CHECKPOINTS).is_dir():  # which are removed below, and are not made again in minutes
            for file in results:
                sync(file)
        files = {str(file.relative_to(self.partial)): _facts(file) for file in results}
        try:
            whole = json.loads(json.dumps({"key": self.key, **record, "files": files}, allow_nan=False))
        except ValueError:
            raise ArtifactError(f"{self.partial}: a figure in its record is not finite, which JSON has not") from None
        replace_json(self.partial / RECORD, {**whole, "seal": seal(whole)})
        self._put_in_place(whole)

    def remove(self) -> None:
        """Remove a finished result, so that a kill in between leaves none that lacks files."""
        if self.path.is_dir():
            self._clear_partial()
            self.path.rename(self.partial)
            (self.partial / RECORD).unlink(missing_ok=True)
            shutil.rmtree(self.partial, ignore_errors=True)

    def _claim(self) -> dict[str, Any]:
        """What the claim says; nothing where there is none, or none that can be read."""
        with suppress(ArtifactError):
            claim = read_object(self.partial / CLAIM, ArtifactError)
            return claim if isinstance(claim.get("key"), str) else {}
        return {}

    def _key_of_name(self) -> str | None:
        """The key, where it is part of the folder's name."""
        return self.key if self.path.name.endswith(f"-{self.key}") else None

    def _finished_in_partial(self) -> dict[str, Any] | None:
        """The record of a result that was not put in place, if it has all of its files.

        Raises:
            ArtifactError: It is of other work, which would be lost.
        """
        try:
            record = read_record(self.partial)
        except ArtifactError:
            return None  # work under way, with a record that was damaged
        if record is None or not all(_has_size(self.partial / name, facts) for name, facts in record["files"].items()):
            return None
        if record["key"] != self.key:
            raise other_settings(self.partial, record)
        return record

    def _clear_partial(self) -> None:
        """Remove unfinished work of other settings, never a finished result."""
        self._finished_in_partial()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _results(self, with_checkpoints: bool) -> list[Path]:
        """The files of the result."""
        files = sorted(file for file in self.partial.rglob("*") if file.is_file() and file != self.partial / CLAIM)
        checkpoints = self.partial / CHECKPOINTS
        return [file for file in files if with_checkpoints or checkpoints not in file.parents]

    def _put_in_place(self, record: Mapping[str, Any]) -> None:
        """Rename a folder that is recorded, and remove what is no part of the result."""
        sync(self.partial)
        if self.path.exists():
            self.path.rmdir()  # an empty folder that the user made
        self.partial.rename(self.path)
        sync(self.path.parent)
        self._tidy()
        remember(self.path, record)

    def _tidy(self) -> None:
        """Remove what a finished result has left of its making; where nothing can be written, it stays."""
        with suppress(OSError):
            (self.path / CLAIM).unlink(missing_ok=True)
        if not self.has_holes():
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)


def _has_holes(record: Mapping[str, Any]) -> bool:
    return bool(record.get("metrics", {}).get(HOLES))


def _has_size(file: Path, facts: Mapping[str, Any]) -> bool:
    return file.is_file() and file.stat().st_size == facts["bytes"]


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _facts(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "xxh3": checksum(file)}
