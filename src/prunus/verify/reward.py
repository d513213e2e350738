"""What an answer is worth in training, by the check of its question: a number from 0 to 1.

It is made of the scores that `evaluate` reports. Where it is finer than these, or stricter, the skill's own `reward`
says so, beside its `score`.
"""

from __future__ import annotations

from prunus.errors import DataError
from prunus.verify.skill import Check, Tools
from prunus.verify.skills import SKILLS


def reward(answer: str, check: Check, tools: Tools, where: str) -> float:
    """The reward of an answer.

    Args:
        answer: As it was written, calls included.
        check: What it is checked by; its keys say of which skill. Of several skills the first in `SKILLS` counts.
        tools: The functions at hand.
        where: The row, for messages.

    Raises:
        DataError: The check is of no known form.
    """
    skill = next((one for one in SKILLS.values() if any(key in check for key in one.keys)), None)
    if skill is None:
        known = (key for one in SKILLS.values() for key in one.keys)
        raise DataError(f"{where}: its check has {', '.join(check)}; expected: {', '.join(known)}")
    try:
        return skill.reward(skill.score(answer, check, tools), answer, check)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: its check cannot be read: {error!r}") from None
