"""The tokens that a tokenizer adds to every text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def prefix_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer puts at the start of every text: (2,) for Gemma 3, () for GPT-2."""
    return _added(tokenizer)[0]


def opening_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a held-out text is predicted from, as in lm-evaluation-harness: its prefix, else BOS, else EOS."""
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return prefix_of(tokenizer) or tuple(token for token in ends if token is not None)[:1]


def suffix_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer puts at the end of every text; () for most."""
    return _added(tokenizer)[1]


def text_ends(tokenizer: Any, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a text, the first of them the one to append: the tokenizer's, those of config.json, its suffix.

    Args:
        tokenizer: The tokenizer.
        config: The model's config.json, whose `eos_token_id` comes after the tokenizer's.
    """
    named = config.get("eos_token_id")
    ends = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]), *suffix_of(tokenizer)[-1:]]
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def _added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return tuple(whole[:start]), tuple(whole[end:])
    return (), ()
