"""The parts of an item: a conversation, its tools, and the check of its last answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """A question, its reference answer, and the check of an answer.

    Attributes:
        question: The user's message.
        answer: The assistant's message: `content`, or `tool_calls`.
        check: In the form of the real benchmarks: `instruction_id_list` and `kwargs` as in IFEval; `answers` as in
            SQuAD, empty if the passages do not say; `calls` as BFCL's possible answers, empty if no call is expected;
            for a persona `facts`, `contradictions` and `manner`.
    """

    question: str
    answer: Message
    check: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """The subject of a conversation, and any number of turns about it."""

    turns: list[Turn]
    system: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)


def reply(text: str) -> Message:
    """A plain-text message of the assistant."""
    return {"role": "assistant", "content": text}
