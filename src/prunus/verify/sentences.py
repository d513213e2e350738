"""Sentences and words of English text, counted as IFEval counts them with nltk, by rules of our own.

Sentences are those of Punkt (Kiss and Strunk 2006) with a list of abbreviations in place of its trained model: a text
with an abbreviation that only one of the two knows can differ by a sentence. Words are those of nltk's Treebank rules.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    {
        *("adm", "apr", "assn", "aug", "ave", "b.c", "blvd", "bros", "c.e", "capt", "cf", "cmdr", "col", "corp", "d.c"),
        *("dec", "dept", "dr", "e.g", "etc", "feb", "fig", "ft", "gen", "gov", "hon", "i.e", "inc", "jan", "jr", "lt"),
        *("ltd", "maj", "messrs", "mr", "mrs", "ms", "mt", "nov", "oct", "p.m", "a.m", "pp", "ph.d", "prof", "rep"),
        *("rev", "sen", "sept", "sgt", "sr", "st", "u.k", "u.n", "u.s", "u.s.a", "vol", "vs"),
    }
)
"""Without their last full stop; single letters count as initials besides."""

_CLOSERS = "\"')]}”’»"
_BREAK = re.compile(r"\S*?[.?!][.?!" + re.escape(_CLOSERS) + r"]*(?=\s|$|[;*:@({\[])")
_OPENERS = "\"'([{“‘«*_"


def count_sentences(text: str) -> int:
    """How many sentences a text has."""
    count, start = 0, 0
    for found in _BREAK.finditer(text):
        rest = text[found.end() :].split(maxsplit=1)
        if rest and _ends(found.group(), rest[0]):
            count += 1
            start = found.end()
    return count + bool(text[start:].strip())


def _ends(word: str, following: str) -> bool:
    """Whether a word that ends in a mark ends a sentence, by the word and the one that follows."""
    core = word.rstrip(_CLOSERS)
    lower = following[:1].islower()
    if not core.endswith("."):
        return True
    if core.endswith(".."):
        return not lower
    stem = core[:-1].lstrip(_OPENERS).lower()
    if len(stem) == 1 and stem.isalpha():
        return False
    if stem.split("-")[-1] in ABBREVIATIONS:
        return False
    return not (lower and stem.replace(",", "").replace(".", "").isdigit())


def count_words(text: str) -> int:
    """How many runs of letters, digits and underscores a text has."""
    return len(re.findall(r"\w+", text))


_PARTS = re.compile(
    r"[\s;@#$%&?!()\[\]{}<>\"“”‘’«»]+|[,:](?!\d)|--+|\.{2,}|``|(?=n't\b)|(?='(?:[sSmMdD]|ll|LL|re|RE|ve|VE)\b)"
)


def count_capital_words(text: str) -> int:
    """How many words have capital letters and no small ones."""
    return sum(word.isupper() for word in _PARTS.split(text) if word)
