"""Counts of sentences and words in English text, following IFEval, which uses nltk, but by simpler rules.

Sentences follow Punkt (Kiss and Strunk 2006), with a list of abbreviations instead of its trained model: counts can
differ by one for an abbreviation that only one of the two knows. Words follow nltk's Treebank rules.
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
"""Abbreviations without their last full stop; single letters count as initials in addition."""

_CLOSERS = "\"')]}”’»"
_BREAK = re.compile(r"\S*?[.?!][.?!" + re.escape(_CLOSERS) + r"]*(?=\s|$|[;*:@({\[])")
_OPENERS = "\"'([{“‘«*_"


def count_sentences(text: str) -> int:
    """The number of sentences in a text."""
    count, start = 0, 0
    for found in _BREAK.finditer(text):
        rest = text[found.end() :].split(maxsplit=1)
        if rest and _ends(found.group(), rest[0]):
            count += 1
            start = found.end()
    return count + bool(text[start:].strip())


def _ends(word: str, following: str) -> bool:
    """Whether a word that ends in a punctuation mark ends a sentence, given the next word."""
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
    """The number of runs of letters, digits and underscores in a text."""
    return len(re.findall(r"\w+", text))


_PARTS = re.compile(
    r"[\s;@#$%&?!()\[\]{}<>\"“”‘’«»]+|[,:](?!\d)|--+|\.{2,}|``|(?=n't\b)|(?='(?:[sSmMdD]|ll|LL|re|RE|ve|VE)\b)"
)


def count_capital_words(text: str) -> int:
    """The number of words that are all in capital letters."""
    return sum(word.isupper() for word in _PARTS.split(text) if word)
