"""Whether a persona stays itself, by rules on what it says, so that no judge is needed.

A card's facts are lists of spellings, any of which counts: `["Prague", "Praha"]`. An answer is consistent if it holds
one of each that it was asked for, nothing that would contradict them, and does not fall out of the role.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_OUT_OF_ROLE = re.compile(
    r"\bas an? (?:ai|artificial|large language|language) \w+|\bi(?: a|')m (?:just |only )?an? (?:ai|language model)\b"
    r"|\bi (?:do not|don't) have (?:personal|feelings|a name|a physical)"
)


def mentions(answer: str, spellings: Sequence[str]) -> bool:
    """Whether an answer holds one of the spellings as whole words, whatever the case and the space between them."""
    text = _plain(answer)
    return any(re.search(rf"(?<!\w){re.escape(_plain(one))}(?!\w)", text) for one in spellings if one.strip())


def out_of_role(answer: str) -> bool:
    """Whether an answer says that a model speaks, and no person."""
    return bool(_OUT_OF_ROLE.search(_plain(answer)))


def consistent(answer: str, facts: Sequence[Sequence[str]], contradictions: Sequence[str] = ()) -> bool:
    """Whether an answer holds every fact, no contradiction, and stays in its role.

    Args:
        answer: What the persona says.
        facts: What it was asked for: for each fact its spellings.
        contradictions: What it must not say, such as the facts of other cards.
    """
    held = all(mentions(answer, spellings) for spellings in facts)
    return held and not mentions(answer, contradictions) and not out_of_role(answer)


def in_manner(answer: str, manner: str, text: str) -> bool:
    """Whether an answer begins or ends with a text, marks apart.

    Args:
        answer: What the persona says.
        manner: `begins with` or `ends with`.
        text: With what.

    Raises:
        ValueError: The manner is another.
    """
    words = answer.split()
    size = len(text.split())
    if manner not in ("begins with", "ends with"):
        raise ValueError(f"manner: {manner!r}; allowed: begins with, ends with")
    return mentions(" ".join(words[:size] if manner == "begins with" else words[-size:]), [text])


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("’", "'").split())
