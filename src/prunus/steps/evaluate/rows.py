"""Local copies of the harness's tasks, with the columns that the harness reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.data.values import read_rows
from prunus.errors import DataError
from prunus.steps.evaluate.items import files_of
from prunus.steps.evaluate.tasks import HARNESS

Row = dict[str, Any]


def local_parts(kind: str, data: str, where: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """The parts of a task: name (empty if there is only one), rows, and few-shot examples if it has separate ones.

    Args:
        kind: The task's name in the harness.
        data: A file of rows in the hub's format or in llm-foundry's; a folder of such files; or a folder in the task's
            original format, if that is supported.
        where: The name of the option, for messages.

    Raises:
        DataError: There is no such file, or a row has no known format.
    """
    known = HARNESS.get(kind)
    if known and known.folder and Path(data).expanduser().is_dir():
        yield from known.folder(data, where)
        return
    rows = [row for file in files_of(data, where) for row in read_rows(file, f"{where}.data")]
    try:
        yield "", [known.columns(row) if known and known.columns else row for row in rows], []
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}.data: {data}: a row has no known format of {kind}: {error!r}") from None
