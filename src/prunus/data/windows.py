"""Held-out text in windows: every token of every document is predicted once, as lm-evaluation-harness does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunus.data.tokens import Tokens
from prunus.errors import DataError


@dataclass(frozen=True)
class Window:
    """A stretch of one document, and what a model reads before it.

    Attributes:
        ids: [n], the context and then the tokens to be predicted.
        context: How many of the first ids are only read; at least 1.
        size: The bytes of text that the predicted tokens stand for.
    """

    ids: np.ndarray
    context: int
    size: float

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return len(self.ids) - self.context


def windows(tokens: Tokens, length: int) -> Iterator[Window]:
    """The documents of a stream in windows of at most `length` tokens, none across two documents.

    A document's first window follows `tokens.opening`; each further one follows the tokenizer's prefix and the token
    before it. That is lm-evaluation-harness's `get_rolling_token_windows` with a context of one token, but that a
    prefix, which models with a BOS cannot do without, stands before every window and not before the first alone. A
    document's bytes are shared out by its tokens. Without an opening a document's first token is read, not predicted.

    Raises:
        DataError: `length` has no room for a token to be predicted.
    """
    prefix = np.asarray(tokens.prefix, dtype=tokens.ids.dtype)
    opening = np.asarray(tokens.opening, dtype=tokens.ids.dtype)
    if length < max(len(opening), len(prefix) + 1) + 1:
        raise DataError(f"sequence_length: {length} has no room for a token behind the {len(prefix) + 1} before it")
    for start, end, size in zip(tokens.starts.tolist(), tokens.ends.tolist(), tokens.sizes.tolist(), strict=True):
        body = tokens.ids[start:end]
        if len(prefix) and np.array_equal(body[: len(prefix)], prefix):
            body = body[len(prefix) :]
        done, context = (0, opening) if len(opening) else (1, body[:1])
        while done < len(body):
            predicted = body[done : done + length - len(context)]
            yield Window(np.concatenate([context, predicted]), len(context), size * len(predicted) / len(body))
            done += len(predicted)
            context = np.concatenate([prefix, body[done - 1 : done]])


def first_windows(tokens: Tokens, length: int, max_tokens: int) -> list[Window]:
    """The windows of at most `length` tokens, until `max_tokens` are in them."""
    chosen: list[Window] = []
    total = 0
    for window in windows(tokens, length):
        chosen.append(window)
        total += len(window.ids)
        if total >= max_tokens:
            break
    return chosen
