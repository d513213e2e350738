"""Rows of a file of JSON values, in whichever of the ways such files are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.data.formats import json_values
from prunus.data.local import LocalRows


def read_rows(file: Path, where: str) -> list[dict[str, Any]]:
    """The rows of a file that is one JSON value a line, a list of them, or SQuAD's whole; none of an empty file.

    Raises:
        DataError: It is none of these.
    """
    if file.is_file() and not file.stat().st_size:
        return []
    return list(LocalRows(file, f"{where}: {file}", reader=json_values))
