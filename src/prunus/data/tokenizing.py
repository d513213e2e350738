"""What a tokenizer does to every text, whatever the text says."""

from __future__ import annotations

from typing import Any


def prefix_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer itself puts at the start of every text: (2,) for Gemma 3, () for GPT-2."""
    return _added(tokenizer)[0]


def suffix_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer itself puts at the end of every text; () for most."""
    return _added(tokenizer)[1]


def _added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return tuple(whole[:start]), tuple(whole[end:])
    return (), ()
