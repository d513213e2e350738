"""Conversion of rows from llm-foundry's form to the columns that the harness reads.

A row that already has these columns is not changed.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def arc(row: Row) -> Row:
    """A question of ARC, with lettered choices."""
    if "answerKey" in row:
        return row
    labels = [chr(ord("A") + i) for i in range(len(row["choices"]))]
    return {
        "question": _question(row), "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }  # fmt: skip


def piqa(row: Row) -> Row:
    """A goal of PIQA and two solutions."""
    if "goal" in row:
        return row
    first, second = row["choices"]
    return {"goal": _question(row), "sol1": first, "sol2": second, "label": row["gold"]}


def winogrande(row: Row) -> Row:
    """A sentence of WinoGrande, with `_` where its two options differ."""
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


def lambada(row: Row) -> Row:
    """A passage of LAMBADA, including its last word."""
    return row if "text" in row else {"text": f"{row['context']} {row['continuation']}"}


def _question(row: Row) -> str:
    return str(row["query"]).removeprefix("Question: ").removesuffix("\nAnswer:").strip()
