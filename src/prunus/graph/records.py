"""The records of finished artifacts: read, and validated before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunus.errors import ArtifactError
from prunus.files import read_object
from prunus.fingerprint import digest

RECORD = "artifact.json"
MISSING_GRADES = "judge_holes"
"""The metric that counts the grades that a judge has not returned; the next run continues a step that has any."""


class FileFacts(BaseModel):
    """The size and the 128-bit XXH3 of a file."""

    model_config = ConfigDict(strict=True)

    bytes: int = Field(ge=0)
    xxh3: str = Field(pattern="^[0-9a-f]{32}$")


class _Shape(BaseModel):
    """The fields common to all records; others depend on the step and are checked where they are read."""

    model_config = ConfigDict(strict=True)

    key: str
    files: dict[str, FileFacts]
    metrics: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    kind: str = ""


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a folder; None if there is none.

    Raises:
        ArtifactError: It cannot be read, or is not a valid record; the message says what to remove.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        record = read_object(file, ArtifactError)
        for name in _Shape.model_validate(record).files:
            _check_inside(name, file)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{file}: damaged: {where}: {first['msg']}; {remedy(folder)}") from None
    except ArtifactError as error:
        raise ArtifactError(f"{error}: damaged; {remedy(folder)}") from None
    return record


def seal(record: Mapping[str, Any]) -> str:
    """A checksum over a record without its own checksum, independent of JSON formatting."""
    return digest({key: value for key, value in record.items() if key != "seal"})[:32]


def remedy(folder: Path) -> str:
    """The advice about a damaged artifact, for messages."""
    return f"remove {folder} to make it again"


def other_settings(folder: Path, record: Mapping[str, Any]) -> ArtifactError:
    """The error for a result of other work that is in the way."""
    return ArtifactError(f"{folder}: holds the result of other settings ({record['key']}); move it away first")


def _check_inside(name: str, file: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ArtifactError(f"{file}: names the file {name!r}, which is outside its folder")
