"""MMLU in its authors' format: folders `test` and `dev` of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.errors import DataError

Row = dict[str, Any]


def mmlu_rows(data: str, where: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Subject, questions and few-shot examples of MMLU, from its folders `test` and `dev` of CSV files.

    Raises:
        DataError: A folder or a file is missing.
    """
    root = Path(data).expanduser()
    files = sorted((root / "test").glob("*_test.csv"))
    if not files:
        raise DataError(f"{where}.data: {root}: expected folders `test` and `dev` of SUBJECT_test.csv and _dev.csv")
    for file in files:
        subject = file.name.removesuffix("_test.csv")
        shown = root / "dev" / f"{subject}_dev.csv"
        if not shown.is_file():
            raise DataError(f"{where}.data: {shown}: file not found; it has the few-shot examples")
        yield subject, _csv(file, where), _csv(shown, where)


def _csv(file: Path, where: str) -> list[Row]:
    """Rows of question, four choices and answer (a letter, or a number from 0), with or without a header line."""
    with file.open(encoding="utf-8", newline="") as handle:
        lines = [line for line in csv.reader(handle) if line]
    if lines and lines[0][0] == "question":
        lines = lines[1:]
    try:
        return [
            {
                "question": question,
                "choices": choices,
                "answer": int(answer) if answer.isdigit() else "ABCD".index(answer),
            }
            for question, *choices, answer in lines
        ]
    except ValueError:
        raise DataError(f"{where}.data: {file}: a line is not a question, its choices and A, B, C or D") from None
