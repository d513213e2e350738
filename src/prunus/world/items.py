"""What the world asks: an item is a conversation, the tools at hand, and how its last answer is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """A question, its reference answer, and what an answer is checked by.

    Attributes:
        question: What the user says.
        answer: The assistant's message: `content`, or `tool_calls`.
        check: As the real benchmarks have it: `instruction_id_list` and `kwargs` as in IFEval; `answers` as in SQuAD,
            none where the passages do not say; `calls` as BFCL's possible answers, none where no call is wanted; and
            of a persona `facts`, `contradictions` and `manner`.
    """

    question: str
    answer: Message
    check: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """What a conversation is about, and any number of turns about it."""

    turns: list[Turn]
    system: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)


def said(text: str) -> Message:
    """An assistant's message of plain text."""
    return {"role": "assistant", "content": text}
