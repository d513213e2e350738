"""What an engine wrote, with or without a draft."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """The continuation of a prompt.

    Attributes:
        text: The tokens, or the text; equal texts are equal continuations.
        tokens: Their number.
        seconds: The time.
        steps: Forward passes of the model after the prompt, each of which gives at least one token.
        drafted: Tokens that the draft proposed.
    """

    text: Hashable
    tokens: int
    seconds: float
    steps: int
    drafted: int
