"""Questions with a right answer, a line of JSON each.

Three forms, those of MosaicML's llm-foundry: `{context, continuation}` (LAMBADA), `{query, choices, gold}` (PIQA, ARC)
and `{context_options, continuation, gold}` (WinoGrande, which arXiv 2408.11796 chose layers by).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunus.errors import DataError

FORMS = ({"context", "continuation"}, {"query", "choices", "gold"}, {"context_options", "continuation", "gold"})


def read_questions(file: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` questions of a file.

    Raises:
        DataError: It is missing, empty, or a line is of no known form.
    """
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:count] if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"score.task: {file} cannot be read as JSONL: {error}") from None
    if not lines:
        raise DataError(f"score.task: {file} holds no question")
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not any(form <= line.keys() for form in FORMS):
            found = ", ".join(line) if isinstance(line, dict) else type(line).__name__
            forms = " or ".join("{" + ", ".join(sorted(form)) + "}" for form in FORMS)
            raise DataError(f"score.task: {file}, line {number} has {found}; {forms} is wanted")
        answers = line.get("choices", line.get("context_options"))
        if answers is not None and line["gold"] not in range(len(answers)):
            raise DataError(
                f"score.task: {file}, line {number}: gold is {line['gold']!r}; it must be a number from 0 to "
                f"{len(answers) - 1}"
            )
    return lines
