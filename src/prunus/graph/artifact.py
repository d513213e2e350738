"""Artifact folders: written under another name, recorded last, then renamed, so that a folder NAME is complete.

What a kill can leave, and how the next start continues (`recover`):

    NAME.partial, no record      unfinished work: resumed if it is the same work
    NAME.partial with a record   a finished result: renamed
    NAME with a record           a finished result; a leftover claim and leftover checkpoints are removed

A result is finished in this order: record, rename, removal of claim and checkpoints. It is reopened in this order:
claim, rename, removal of the record.
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
from prunus.graph.records import MISSING_GRADES, RECORD, other_settings, read_record, remedy, seal


@dataclass(frozen=True)
class Artifact:
    """A result folder, which may not exist yet.

    Attributes:
        path: The folder when it is finished.
        key: The first 8 hex digits of its fingerprint.
    """

    path: Path
    key: str

    @property
    def partial(self) -> Path:
        """The folder while it is unfinished."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def record(self) -> dict[str, Any] | None:
        """Its record; None if it is not finished.

        Raises:
            ArtifactError: The record cannot be read, or belongs to other work.
        """
        record = read_record(self.path)
        if record is None:
            if self.path.exists() and not (self.path.is_dir() and _is_empty(self.path)):
                raise ArtifactError(f"{self.path}: exists and is not a result of Prunus; choose another folder")
            return None
        if record["key"] != self.key:
            raise other_settings(self.path, record)
        return record

    def is_done(self) -> bool:
        """Whether the result exists, with every recorded file at its recorded size.

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

    def lacks_grades(self) -> bool:
        """Whether it is finished but lacks grades that a judge did not return."""
        record = self.record
        return record is not None and _lacks_grades(record)

    def is_complete(self) -> bool:
        """Whether it is finished and lacks no grades."""
        return self.is_done() and not self.lacks_grades()

    def has_begun(self) -> bool:
        """Whether an earlier run left it unfinished.

        The claim says which work a folder belongs to; without a readable claim, the key in the folder's name does.
        """
        if not self.partial.is_dir():
            return False
        return self._claim().get("key", self._key_of_name()) == self.key

    def recover(self) -> None:
        """After a kill, bring the folder to one of two states: finished and renamed, or unfinished.

        Raises:
            ArtifactError: The record cannot be read, or a result with other settings is in the way.
        """
        if self.record is not None:
            self._tidy()
        elif (record := self._finished_in_partial()) is not None:
            self._put_in_place(record)

    def begin(self) -> Path:
        """Make the folder to work in, or resume the one that a killed run of the same work left."""
        if not self.has_begun():
            self._clear_partial()
            self.partial.mkdir(parents=True)
        if self._claim().get("key") != self.key:
            replace_json(self.partial / CLAIM, {"key": self.key})
        (self.partial / RECORD).unlink(missing_ok=True)  # left by a result that lost files or is reopened
        return self.partial

    def reopen(self) -> None:
        """Make a finished result unfinished again, to continue from its content."""
        self._clear_partial()
        replace_json(self.path / CLAIM, {"key": self.key, "reopened": True})
        self.path.rename(self.partial)
        self.begin()

    def abandon(self) -> None:
        """Remove the folder of a failed step, unless a later run can resume from it."""
        kept = any(self.partial.glob(f"{CHECKPOINTS}/*/complete")) or self._claim().get("reopened")
        if not kept:
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, with the size and checksum of every file, and rename the folder.

        Checkpoints are removed last. They are kept if grades are missing, since they hold the answers to be judged.

        Raises:
            ArtifactError: A metric is not finite.
            OSError: The disk is full or fails; the work is kept for the next run to finish.
        """
        remove_unfinished(self.partial)
        (self.partial / RECORD).unlink(missing_ok=True)
        results = self._results(_lacks_grades(record))
        if (self.partial / CHECKPOINTS).is_dir():  # they are removed below and took long to make: flush results first
            for file in results:
                sync(file)
        files = {str(file.relative_to(self.partial)): _facts(file) for file in results}
        try:
            whole = json.loads(json.dumps({"key": self.key, **record, "files": files}, allow_nan=False))
        except ValueError:
            raise ArtifactError(
                f"{self.partial}: its metrics hold NaN or infinity, which JSON cannot represent"
            ) from None
        replace_json(self.partial / RECORD, {**whole, "seal": seal(whole)})
        self._put_in_place(whole)

    def remove(self) -> None:
        """Remove a finished result, in an order in which a kill never leaves a finished one without its files."""
        if self.path.is_dir():
            self._clear_partial()
            self.path.rename(self.partial)
            (self.partial / RECORD).unlink(missing_ok=True)
            shutil.rmtree(self.partial, ignore_errors=True)

    def _claim(self) -> dict[str, Any]:
        """The content of the claim; empty if it is missing or cannot be read."""
        with suppress(ArtifactError):
            claim = read_object(self.partial / CLAIM, ArtifactError)
            return claim if isinstance(claim.get("key"), str) else {}
        return {}

    def _key_of_name(self) -> str | None:
        """The key, if it is part of the folder's name."""
        return self.key if self.path.name.endswith(f"-{self.key}") else None

    def _finished_in_partial(self) -> dict[str, Any] | None:
        """The record of a finished result that was not renamed yet, if it has all of its files.

        Raises:
            ArtifactError: It belongs to other work, which would be lost.
        """
        try:
            record = read_record(self.partial)
        except ArtifactError:
            return None  # unfinished work with a damaged record
        if record is None or not all(_has_size(self.partial / name, facts) for name, facts in record["files"].items()):
            return None
        if record["key"] != self.key:
            raise other_settings(self.partial, record)
        return record

    def _clear_partial(self) -> None:
        """Remove unfinished work with other settings; never a finished result."""
        self._finished_in_partial()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _results(self, with_checkpoints: bool) -> list[Path]:
        """The files of the result."""
        files = sorted(file for file in self.partial.rglob("*") if file.is_file() and file != self.partial / CLAIM)
        checkpoints = self.partial / CHECKPOINTS
        return [file for file in files if with_checkpoints or checkpoints not in file.parents]

    def _put_in_place(self, record: Mapping[str, Any]) -> None:
        """Rename a recorded folder, and remove what is not part of the result."""
        sync(self.partial)
        if self.path.exists():
            self.path.rmdir()  # an empty folder that the user made
        self.partial.rename(self.path)
        sync(self.path.parent)
        self._tidy()
        remember(self.path, record)

    def _tidy(self) -> None:
        """Remove the claim and the checkpoints of a finished result; a read-only folder keeps them."""
        with suppress(OSError):
            (self.path / CLAIM).unlink(missing_ok=True)
        if not self.lacks_grades():
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)


def _lacks_grades(record: Mapping[str, Any]) -> bool:
    return bool(record.get("metrics", {}).get(MISSING_GRADES))


def _has_size(file: Path, facts: Mapping[str, Any]) -> bool:
    return file.is_file() and file.stat().st_size == facts["bytes"]


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _facts(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "xxh3": checksum(file)}
