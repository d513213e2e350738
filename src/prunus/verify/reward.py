"""The reward of an answer in training, by the check of its item: a number from 0 to 1.

It is computed from the scores that `evaluate` reports; each skill's `reward` documents how it differs from them.
"""

from __future__ import annotations

from math import comb

from prunus.errors import DataError
from prunus.verify.skill import Check, Tools
from prunus.verify.skills import SKILLS


def reward(answer: str, check: Check, tools: Tools, where: str) -> float:
    """The reward of an answer.

    Args:
        answer: The answer as generated, including calls.
        check: Its check, whose keys determine the skill; if several match, the first in `SKILLS`.
        tools: The available functions.
        where: The row, for messages.

    Raises:
        DataError: The check has no known form.
    """
    skill = next((one for one in SKILLS.values() if any(key in check for key in one.keys)), None)
    if skill is None:
        known = (key for one in SKILLS.values() for key in one.keys)
        raise DataError(f"{where}: its check has {', '.join(check)}; expected: {', '.join(known)}")
    try:
        return skill.reward(skill.score(answer, check, tools), answer, check)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: its check cannot be read: {error!r}") from None


def pass_at(count: int, right: int, k: int) -> float:
    """The probability that one of k answers is right, if `right` of `count` were (arXiv 2107.03374, equation 1)."""
    return 1 - comb(count - right, k) / comb(count, k)
