"""Options of reading conversations."""

from __future__ import annotations

from typing import ClassVar, Literal

from prunus.config import StepConfig

Wanted = Literal["answers", "attributes", "pairs", "rewards", "labels"]


PAIRED = ("pairs", "rewards")
JUDGED = (*PAIRED, "labels")
"""Kinds of rows of which only the last answer is trained on or rewarded."""


class ConversationsConfig(StepConfig):
    """Conversations as tokens: what each row must have, and how long it may be."""

    kind: ClassVar[str] = "conversations"
    revision: ClassVar[int] = 2

    wanted: Wanted = "answers"
    """What each row must have: `answers` of the assistant; these with `attributes`; `pairs` of answers; pairs with
    `rewards`; or answers with `labels`."""
    template: str | None = None
    """Text of the chat template. If unset: the tokenizer's."""
    sequence_length: int = 4096
    """Longest conversation, in tokens."""
    longer: Literal["refuse", "drop"] = "refuse"
    """What to do with a longer one."""
