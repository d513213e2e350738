"""Questions with a correct answer, one JSON object per line.

Three formats, from MosaicML's llm-foundry: `{context, continuation}` (LAMBADA), `{query, choices, gold}` (PIQA, ARC)
and `{context_options, continuation, gold}` (WinoGrande, by which arXiv 2408.11796 selects layers).
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.formats import json_lines
from prunus.data.local import LocalRows
from prunus.errors import DataError

FORMS = ({"context", "continuation"}, {"query", "choices", "gold"}, {"context_options", "continuation", "gold"})


def read_questions(file: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` questions of a file.

    Raises:
        DataError: It is missing or empty, or a line has an unknown format.
    """
    where = f"score.task: {file}"
    rows = list(islice(LocalRows(file, where, reader=json_lines), count))
    if not rows:
        raise DataError(f"{where} holds no question")
    for number, row in enumerate(rows, start=1):
        _check(row, f"{where}, line {number}")
    return rows


def _check(row: dict[str, Any], where: str) -> None:
    """Refuse a row of an unknown format."""
    if not any(form <= row.keys() for form in FORMS):
        forms = " or ".join("{" + ", ".join(sorted(form)) + "}" for form in FORMS)
        raise DataError(f"{where} has {', '.join(row)[:200]}; expected {forms}")
    for name in ("context", "continuation", "query"):
        if not isinstance(row.get(name, ""), str):
            raise DataError(f"{where}: {name} is {row[name]!r:.60}; expected text")
    answers = row.get("choices", row.get("context_options"))
    if answers is None:
        return
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{where}: the answers are {answers!r:.60}; expected a list of texts")
    if isinstance(row["gold"], bool) or row["gold"] not in range(len(answers)):
        raise DataError(f"{where}: gold is {row['gold']!r:.60}; expected a number from 0 to {len(answers) - 1}")
