"""Held-out text in windows: every token of every document is predicted once, as in lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunus.data.tokens import Tokens
from prunus.errors import DataError


@dataclass(frozen=True)
class Window:
    """A part of one document, and its context.

    Attributes:
        ids: [n], the context, then the tokens to be predicted.
        context: The number of first ids that are only read; at least 1.
        size: The UTF-8 bytes of the predicted tokens.
    """

    ids: np.ndarray
    context: int
    size: float

    @property
    def predicted(self) -> int:
        """The number of predicted tokens."""
        return len(self.ids) - self.context


def windows(tokens: Tokens, length: int) -> Iterator[Window]:
    """The documents of a stream in windows of at most `length` tokens; no window spans two documents.

    The context of a document's first window is `tokens.opening`; that of each further window is the tokenizer's prefix
    and the token before the window. This is lm-evaluation-harness's `get_rolling_token_windows` with a context of one
    token, with one difference: the prefix, without which models with a BOS fail, is put before every window, not only
    before the first. A document's bytes are divided evenly among its tokens. Without an opening, a document's first
    token is read but not predicted.

    Raises:
        DataError: `length` has no room for a token to be predicted.
    """
    prefix = np.asarray(tokens.prefix, dtype=tokens.ids.dtype)
    opening = np.asarray(tokens.opening, dtype=tokens.ids.dtype)
    if length < max(len(opening), len(prefix) + 1) + 1:
        raise DataError(
            f"sequence_length: {length} has no room for a predicted token after a context of {len(prefix) + 1}"
        )
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
    """The first windows of at most `length` tokens, until they hold `max_tokens` tokens."""
    chosen: list[Window] = []
    total = 0
    for window in windows(tokens, length):
        chosen.append(window)
        total += len(window.ids)
        if total >= max_tokens:
            break
    return chosen


def openings(tokens: Tokens, length: int, count: int) -> list[list[int]]:
    """The first `length` tokens of the first `count` documents that are longer than twice that."""
    pairs = zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)
    long = [start for start, end in pairs if end - start > 2 * length]
    return [tokens.ids[start : start + length].tolist() for start in long[:count]]
