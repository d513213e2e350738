"""Rows of a file of JSON values, in any common layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.data.formats import json_values
from prunus.data.local import LocalRows


def read_rows(file: Path, where: str) -> list[dict[str, Any]]:
    """The rows of a file with one JSON value per line, a list of values, or SQuAD's object; none for an empty file.

    Raises:
        DataError: It is none of these.
    """
    if file.is_file() and not file.stat().st_size:
        return []
    return list(LocalRows(file, f"{where}: {file}", reader=json_values))
