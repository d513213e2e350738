"""Options of reading conversations."""

from __future__ import annotations

from typing import ClassVar, Literal

from prunus.config import StepConfig

Wanted = Literal["answers", "attributes", "pairs", "rewards", "labels"]


PAIRED = ("pairs", "rewards")
JUDGED = (*PAIRED, "labels")
"""What is wanted of rows where the last answer alone is learnt, or judged."""


class ConversationsConfig(StepConfig):
    """Conversations as tokens: what is wanted of each row, and how long it may be."""

    kind: ClassVar[str] = "conversations"
    revision: ClassVar[int] = 2

    wanted: Wanted = "answers"
    """What each row must have: what the assistant says; the same with `attributes`; `pairs` of answers, or those with
    `rewards`; or answers with `labels`."""
    template: str | None = None
    """The chat template itself; the tokenizer's own if not given."""
    sequence_length: int = 4096
    """Tokens of a conversation, at most."""
    longer: Literal["refuse", "drop"] = "refuse"
    """What to do with a longer one."""
