"""Rows of a file of JSON values, in whichever of the ways such files are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunus.errors import DataError


def read_rows(file: Path, where: str) -> list[dict[str, Any]]:
    """The rows of a file that is one JSON value a line, a list of them, or SQuAD's whole.

    Raises:
        DataError: It is none of these.
    """
    text = file.read_text(encoding="utf-8")
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
        rows = whole if whole is not None else _lines(text)
    except ValueError as error:
        raise DataError(f"{where}: {file}: not JSON, nor JSON by lines: {error}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{where}: {file}: a row is no mapping")
    return rows


def _lines(text: str) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return [json.loads(text)]
