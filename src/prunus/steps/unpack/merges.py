"""Merges that are equivalent to scores: from sentencepiece-like BPE to tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def merges_of_scores(tokens: Sequence[str], scores: Sequence[float], usable: Iterable[int]) -> list[tuple[str, str]]:
    """Every pair of tokens that form another token, highest score first.

    llama.cpp joins the two neighbours whose union has the highest score, whatever the two are. So every split of a
    token into two tokens is a merge, not only the one that was learnt. Splits of the same token are adjacent: llama.cpp
    does not order them, and takes the leftmost in the text.

    Args:
        tokens: Every token, by id.
        scores: The score of each token.
        usable: The ids of tokens that text may consist of.
    """
    numbers = {tokens[number]: number for number in usable}
    found = sorted(_splits(numbers), key=lambda item: (-scores[item[0]], item[0], item[1]))
    return [(tokens[number][:at], tokens[number][at:]) for number, at in found]


def _splits(numbers: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    """(id, position) of every split of a token into two tokens."""
    for text, number in numbers.items():
        for at in range(1, len(text)):
            if text[:at] in numbers and text[at:] in numbers:
                yield number, at
