"""Conversion of benchmarks' file formats to Prunus's items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunus.errors import DataError
from prunus.verify.answers import NO_ANSWER

Row = dict[str, Any]

ASK = (
    "Answer the question by the passages below, in as few words as you can. If they do not hold the answer, say: "
    f"{NO_ANSWER}"
)
"""Instruction before the passages."""

PASSAGES = 5
"""Number of retrieved passages that a model gets, as in ChatRAG-Bench."""


def to_items(rows: list[Row], file: Path, gold: dict[str, Any], where: str) -> list[Row]:
    """Rows as items, from any of the known formats.

    Args:
        rows: The rows of one file.
        file: The file, for messages.
        gold: Answers by id of their question.
        where: The name of the option, for messages.

    Raises:
        DataError: The format is unknown, or an answer is missing.
    """
    if not rows:
        return []
    forms: dict[str, Callable[[Row], list[Row]]] = {  # by a key that only rows of that format have
        "check": lambda row: [row],
        "instruction_id_list": lambda row: [_ifeval(row)],
        "turns": lambda row: [_mt_bench(row, gold)],
        "function": lambda row: [_bfcl(row, gold, f"{where}: {file.name}")],
        "data": lambda row: list(_squad(row["data"])),
        "ctxs": lambda row: [_chatrag(row)],
    }
    form = next((form for key, form in forms.items() if key in rows[0]), None)
    if form is None:
        raise DataError(
            f"{where}: {file}: rows have {', '.join(rows[0])}; expected items (messages, check), or the format of "
            "IFEval, MT-Bench, SQuAD, ChatRAG-Bench or BFCL"
        )
    try:
        return [item for row in rows for item in form(row)]
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: {file}: a row does not have the format of the first one: {error!r}") from None


def _user(text: str) -> Row:
    return {"role": "user", "content": text}


def _ifeval(row: Row) -> Row:
    check = {"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]}
    return {"id": row["key"], "messages": [_user(row["prompt"])], "check": check}


def _mt_bench(row: Row, gold: dict[str, Any]) -> Row:
    answers = gold.get(str(row["question_id"]))
    reference = answers["choices"][0]["turns"] if answers else row.get("reference")
    first, *then = row["turns"]
    check = {"judge": True, **({"reference": reference} if reference else {})}
    return {
        "id": row["question_id"], "group": row.get("category"), "messages": [_user(first)], "then": then, "check": check
    }  # fmt: skip


def _squad(articles: list[Row]) -> Iterator[Row]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for pair in paragraph["qas"]:
                answers = list(dict.fromkeys(answer["text"] for answer in pair["answers"]))
                group = "unanswerable" if not answers else "answerable"
                messages = _with_passages([paragraph["context"]], [_user(pair["question"])])
                yield {"id": pair["id"], "group": group, "messages": messages, "check": {"answers": answers}}


def _chatrag(row: Row) -> Row:
    passages = [context["text"] for context in row["ctxs"][:PASSAGES]]
    answers = [answer for answer in row.get("answers", [row.get("answer")]) if answer]
    absent = all(answer.strip().lower().startswith("sorry. i cannot find") for answer in answers)
    found = {
        "messages": _with_passages(passages, row["messages"]),
        "group": "unanswerable" if absent else "answerable",
        "check": {"answers": [] if absent else answers},
    }
    return {**found, **({"id": row["id"]} if "id" in row else {})}


def _with_passages(passages: list[str], messages: list[Row]) -> list[Row]:
    """A conversation with passages before its last question; not in a system message, which some templates lack."""
    *before, last = messages
    text = "\n\n".join([ASK, *passages, f"Question: {last['content']}"])
    return [*before, _user(text)]


def _bfcl(row: Row, gold: dict[str, Any], where: str) -> Row:
    """A row of BFCL: `relevance` expects any call, `irrelevance` none, other categories the possible answers."""
    category = re.sub(r"_\d+(-\d+)*$", "", row["id"])
    if category.endswith("irrelevance"):
        calls: Any = []
    elif category.endswith("relevance"):
        calls = "any"
    elif row["id"] in gold:
        calls = gold[row["id"]]["ground_truth"]
    else:
        raise DataError(f"{where}: {row['id']}: has no possible answer; set gold to the folder `possible_answer`")
    messages = row["question"][0]
    return {
        "id": row["id"], "group": category, "messages": messages, "tools": row["function"], "check": {"calls": calls}
    }  # fmt: skip
