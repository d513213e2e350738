"""Artifact folders: made under another name, recorded last, then put in place, so that what stands there is whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prunus.errors import ArtifactError
from prunus.fingerprint import checksum
from prunus.judging.config import HOLES

RECORD = "artifact.json"
_CLAIM = "unfinished.json"  # in a .partial folder: whose work it is


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

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """Its record, or None where it is not finished.

        Raises:
            ArtifactError: The record cannot be read, or is of other work.
        """
        file = self.path / RECORD
        if not file.is_file():
            if self.path.exists() and any(self.path.iterdir()):
                raise ArtifactError(f"{self.path}: exists, and is not a result of Prunus; choose another place for it")
            return None
        try:
            record: dict[str, Any] = json.loads(file.read_text())
        except ValueError as error:
            raise ArtifactError(f"{file}: damaged: {error}; remove {self.path} to make it again") from None
        if record.get("key") != self.key:
            raise ArtifactError(
                f"{self.path}: holds the result of other settings ({record.get('key')}); move it away first"
            )
        return record

    def is_done(self) -> bool:
        """Whether the result is there, with every file that its record names at its recorded size.

        Raises:
            ArtifactError: A file is missing or of another size.
        """
        if self.record is None:
            return False
        for name, facts in self.record["files"].items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != facts["bytes"]:
                raise ArtifactError(
                    f"{file}: missing or not {facts['bytes']} bytes; remove {self.path} to make it again"
                )
        return True

    def has_holes(self) -> bool:
        """Whether it is there, but lacks what a judge did not say."""
        return self.record is not None and bool(self.record["metrics"].get(HOLES))

    def reopen(self) -> None:
        """Take a finished result up again, to go on from what is in it."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.path.rename(self.partial)
        (self.partial / _CLAIM).write_text(json.dumps({"key": self.key}))
        (self.partial / RECORD).unlink()
        self.__dict__.pop("record", None)

    def has_begun(self) -> bool:
        """Whether an earlier run left it unfinished."""
        claim = self.partial / _CLAIM
        return claim.is_file() and json.loads(claim.read_text()).get("key") == self.key

    def begin(self) -> Path:
        """Make the folder to work in, or take up the one that a killed run of the same work left."""
        if not self.has_begun():
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            (self.partial / _CLAIM).write_text(json.dumps({"key": self.key}))
        return self.partial

    def abandon(self) -> None:
        """Remove what a failed step left, unless there are checkpoints in it to go on from."""
        if not any(self.partial.glob("checkpoints/*/complete")):
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, with the size and checksum of every file, and put the folder in place."""
        (self.partial / _CLAIM).unlink()
        files = sorted(file for file in self.partial.rglob("*") if file.is_file())
        record = {
            "key": self.key,
            **record,
            "files": {
                str(file.relative_to(self.partial)): {"bytes": file.stat().st_size, "xxh3": checksum(file)}
                for file in files
            },
        }
        (self.partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        if self.path.exists():
            self.path.rmdir()  # an empty folder that the user made
        self.partial.rename(self.path)
        self.__dict__.pop("record", None)
