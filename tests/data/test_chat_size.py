"""Estimated amounts of chat data, against counting all rows."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from prunus.data.chat import conversations
from prunus.data.chat_size import UNKNOWN, _tokens, chat_size
from prunus.data.config import ChatSource


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    text = json.dumps(rows, indent=2) if file.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text)
    return str(file)


def row(number: int) -> dict[str, Any]:
    return {"prompt": f"Question {number}: " + "what is it? " * (5 + number % 7), "chosen": "It is a plum. " * 9}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("count", [9, 700])
def test_rows_and_tokens(name: str, count: int, tmp_path: Path) -> None:
    file = write(tmp_path / name, [{**row(i), "rejected": "No."} for i in range(count)])
    found = chat_size([ChatSource(path=file)])
    assert found.rows == pytest.approx(count, rel=0 if count == 9 else 0.02 if name.endswith("l") else 0.25)
    texts = list(conversations(ChatSource(path=file), ""))
    exact = sum(len(turn["content"]) for one in texts for turn in (*one.messages, *(one.rejected or []))) / 4
    assert found.tokens == pytest.approx(exact, rel=0.45)  # a template's tokens are added
    assert found.tokens > found.prompts > 0


def test_a_limit_bounds_it_and_sources_add_up(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"prompt": "Plum?", "completion": "Yes."}] * 500)
    limited = chat_size([ChatSource(path=file, limit=200)])
    assert limited.rows == 200
    world = ChatSource.model_validate({"path": "builtin:world", "name": "chat", "world": {"conversations": 300}})
    both = chat_size([ChatSource(path=file, limit=200), world])
    assert both.rows == 500  # 200 and 300
    assert both.tokens > limited.tokens


def test_data_that_is_not_here_is_unknown(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"prompt": "Plum?", "completion": "Yes."}] * 5)
    assert chat_size([ChatSource(path=file), ChatSource(path="somebody/chat")]) == UNKNOWN


def test_dates_in_a_call_are_counted_as_text(tmp_path: Path) -> None:
    call = [{"type": "function", "function": {"name": "book", "arguments": {"on": datetime(2026, 5, 1)}}}]
    turns = [{"role": "user", "content": "Book it."}, {"role": "assistant", "content": "", "tool_calls": call}]
    assert _tokens(turns) > _tokens(turns[:1])
