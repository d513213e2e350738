"""Local copies of the harness's tasks, whose rows come in several forms, with the columns that the harness reads."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunus.data.values import read_rows
from prunus.errors import DataError
from prunus.evaluate.items import files_of

Row = dict[str, Any]


def local_rows(kind: str, data: str, where: str) -> list[Row]:
    """The rows of a task, with the columns that it has on the hub.

    Args:
        kind: The task's name in the harness.
        data: A file of rows in the hub's form, or in the choices of llm-foundry; or a folder of such files.
        where: The option's path, for messages.

    Raises:
        DataError: There is no such file, or a row is in no known form.
    """
    rows = [row for file in files_of(data, where) for row in read_rows(file, f"{where}.data")]
    change = _CHANGES.get(kind)
    try:
        return [change(row) if change else row for row in rows]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}.data: {data}: a row is not in a form of {kind}: {error!r}") from None


def _question(row: Row) -> str:
    return str(row["query"]).removeprefix("Question: ").removesuffix("\nAnswer:").strip()


def _arc(row: Row) -> Row:
    if "answerKey" in row:
        return row
    labels = [chr(ord("A") + i) for i in range(len(row["choices"]))]
    return {
        "question": _question(row), "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }  # fmt: skip


def _piqa(row: Row) -> Row:
    if "goal" in row:
        return row
    first, second = row["choices"]
    return {"goal": _question(row), "sol1": first, "sol2": second, "label": row["gold"]}


def _winogrande(row: Row) -> Row:
    if "sentence" in row:
        return row
    options = row["context_options"]
    words = [option.split(" ") for option in options]
    alike = next(i for i, pair in enumerate(zip(*words, strict=False)) if pair[0] != pair[1])
    start = len(" ".join(words[0][:alike])) + bool(alike)
    return {
        "sentence": f"{options[0][:start]}_ {row['continuation']}", "option1": options[0][start:],
        "option2": options[1][start:], "answer": str(row["gold"] + 1),
    }  # fmt: skip


def _lambada(row: Row) -> Row:
    return row if "text" in row else {"text": f"{row['context']} {row['continuation']}"}


_CHANGES: dict[str, Callable[[Row], Row]] = {
    "arc_easy": _arc, "arc_challenge": _arc, "piqa": _piqa, "winogrande": _winogrande, "lambada_openai": _lambada
}  # fmt: skip


def mmlu_rows(data: str, where: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Subject, questions and worked examples of MMLU, from its folders `test` and `dev` of CSV files.

    Raises:
        DataError: A folder or a file is missing.
    """
    root = Path(data).expanduser()
    files = sorted((root / "test").glob("*_test.csv"))
    if not files:
        raise DataError(f"{where}.data: {root}: folders `test` and `dev` of SUBJECT_test.csv and _dev.csv are wanted")
    for file in files:
        subject = file.name.removesuffix("_test.csv")
        shown = root / "dev" / f"{subject}_dev.csv"
        if not shown.is_file():
            raise DataError(f"{where}.data: {shown}: there is no such file; it holds the worked examples")
        yield subject, _csv(file, where), _csv(shown, where)


def _csv(file: Path, where: str) -> list[Row]:
    """Rows of question, four choices and answer: a letter, or a number from 0; with a line of names or without."""
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
