"""The amount of chat data, estimated from its first rows and the size of its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.sources import rows
from prunus.data.turns import Turns
from prunus.world.config import WorldConfig

_SAMPLED = 128  # rows that are read
_BYTES = 4  # bytes of text per token, approximately
_TURN = 6  # tokens that a template adds to a turn, approximately


@dataclass(frozen=True)
class ChatSize:
    """An estimate; zeros if it is unknown.

    Attributes:
        rows: Number of rows.
        tokens: Tokens of all rows; of pairs, with both answers, each after its prompt.
        prompts: Tokens of all prompts.
    """

    rows: int = 0
    tokens: int = 0
    prompts: int = 0


UNKNOWN = ChatSize()


def chat_size(sources: Sequence[ChatSource]) -> ChatSize:
    """The size of all sources together; unknown if that of one is unknown, such as that of data on the hub."""
    sizes = [_size(source) for source in sources]
    if not all(size.rows for size in sizes):
        return UNKNOWN
    return ChatSize(*(sum(getattr(size, name) for size in sizes) for name in ("rows", "tokens", "prompts")))


def _size(source: ChatSource) -> ChatSize:
    built_in, file = source.path.startswith("builtin:"), Path(source.path).expanduser()
    if not built_in and not file.is_file():
        return UNKNOWN
    sample = list(islice(conversations(source, ""), _SAMPLED))
    count = len(sample)
    if count == _SAMPLED:
        count = (source.world or WorldConfig()).conversations if built_in else _rows_of(source, file)
        count = min(count, source.limit or count)
    if not sample or not count:
        return UNKNOWN
    whole = [_tokens(row.messages) + _tokens(row.rejected or []) for row in sample]
    prompts = [_tokens(row.prompt_turns()) for row in sample]
    return ChatSize(count, sum(whole) * count // len(sample), sum(prompts) * count // len(sample))


def _rows_of(source: ChatSource, file: Path) -> int:
    """Rows of a file, by its size and that of its first rows; 0 if it is compressed or binary."""
    kind = file.suffix.lower()
    if kind == ".jsonl":
        with file.open("rb") as lines:
            sample = list(islice(lines, _SAMPLED))
    elif kind in (".json", ".csv"):
        sample = [_dumped(row) for row in islice(rows(source, ""), _SAMPLED)]
    else:
        return 0
    return max(_SAMPLED, file.stat().st_size * len(sample) // sum(map(len, sample)))


def _tokens(turns: Turns) -> int:
    texts = [[value for key, value in turn.items() if key != "role"] for turn in turns]
    return len(_dumped(texts)) // _BYTES + _TURN * len(turns)


def _dumped(value: Any) -> bytes:
    """A value as JSON; dates and the like, which Parquet files have, as text."""
    return json.dumps(value, ensure_ascii=False, default=str).encode()
