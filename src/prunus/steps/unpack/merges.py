"""Merges that do what scores do: a sentencepiece-like BPE as tokenizer.json keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def merges_of_scores(tokens: Sequence[str], scores: Sequence[float], usable: Iterable[int]) -> list[tuple[str, str]]:
    """Every pair of tokens that make another, the one of the highest score first.

    llama.cpp joins the two neighbours whose whole has the highest score, whichever two they are; so every split of a
    token into two is a merge, and not only the one that it was learnt by. Splits of the same token stand in a row:
    llama.cpp has no order among them, and takes the leftmost in the text.

    Args:
        tokens: Every token by its number.
        scores: The score of each.
        usable: The numbers of those that text may be made of.
    """
    numbers = {tokens[number]: number for number in usable}
    found = sorted(_splits(numbers), key=lambda item: (-scores[item[0]], item[0], item[1]))
    return [(tokens[number][:at], tokens[number][at:]) for number, at in found]


def _splits(numbers: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    """The number of a token, and where it is cut, for every cut into two tokens."""
    for text, number in numbers.items():
        for at in range(1, len(text)):
            if text[:at] in numbers and text[at:] in numbers:
                yield number, at
