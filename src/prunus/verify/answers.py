"""Scores of short answers against gold answers, as in SQuAD and ChatRAG-Bench: exact match, token F1, unanswerable.

SQuAD: Rajpurkar et al. 2016, arXiv 1606.05250, and 2018, arXiv 1806.03822. ChatRAG-Bench: Liu et al. 2024, arXiv
2401.10225.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

NO_ANSWER = "Sorry. I cannot find the answer based on the context."
"""The answer that ChatRAG-Bench requires if the passages do not contain one."""

_NOT = r"(?:can(?:no|')t|can not|could(?:n't| not)|(?:is|am|are|was) (?:un|not )able to|unable to)"
_ABSENT = re.compile(
    rf"\b{_NOT} (?:be )?(?:find|found|answer(?:ed)?|provided?|determined?|tell|locate[d]?)\b"
    r"|\b(?:does|do|did)(?:n't| not) (?:\w+ )?"
    r"(?:provide|mention|specify|say|state|include|contain|have|know|indicate)\b"
    r"|\bnot (?:explicitly )?(?:mentioned|provided|stated|specified|given)\b"
    r"|\bno (?:information|mention|answer)\b|\bunanswerable\b"
)


def normalised(text: str) -> str:
    """Text in lower case, without punctuation and articles, with single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the normalised answer equals a normalised gold answer, else 0."""
    return float(any(normalised(answer) == normalised(one) for one in gold))


def token_f1(answer: str, gold: Sequence[str]) -> float:
    """The best F1, in [0, 1], of an answer's words with those of a gold answer; 1 if both have no words."""
    return max((_f1(normalised(answer).split(), normalised(one).split()) for one in gold), default=0.0)


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold))


def says_unanswerable(answer: str) -> bool:
    """Whether an answer states that the passages do not contain one."""
    return bool(_ABSENT.search(answer.lower().replace("’", "'")))


def answered(answer: str, gold: Sequence[str]) -> tuple[float, float]:
    """Token F1 and exact match of an answer; without gold answers, both are 1 if it states that there is none.

    Deviation: SQuAD accepts an empty answer as such a statement. Here it is wrong: a broken model is silent too.
    """
    if not gold:
        right = float(says_unanswerable(answer))
        return right, right
    return token_f1(answer, gold), exact_match(answer, gold)
