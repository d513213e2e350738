"""Whether a persona's answer is consistent with its card, by rules, without a judge.

Each fact is a list of accepted spellings: `["Prague", "Praha"]`. An answer is consistent if it mentions every requested
fact, mentions nothing that contradicts them, and does not leave the role.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_OUT_OF_ROLE = re.compile(
    r"\bas an? (?:ai|artificial|large language|language) \w+|\bi(?: a|')m (?:just |only )?an? (?:ai|language model)\b"
    r"|\bi (?:do not|don't) have (?:personal|feelings|a name|a physical)"
)


def mentions(answer: str, spellings: Sequence[str]) -> bool:
    """Whether an answer contains one of the spellings as whole words, ignoring case and white space."""
    text = _plain(answer)
    return any(re.search(rf"(?<!\w){re.escape(_plain(one))}(?!\w)", text) for one in spellings if one.strip())


def out_of_role(answer: str) -> bool:
    """Whether an answer states that its author is a model."""
    return bool(_OUT_OF_ROLE.search(_plain(answer)))


def consistent(answer: str, facts: Sequence[Sequence[str]], contradictions: Sequence[str] = ()) -> bool:
    """Whether an answer mentions every fact and no contradiction, and does not leave its role.

    Args:
        answer: The persona's answer.
        facts: The accepted spellings of each requested fact.
        contradictions: Texts that it must not contain, such as the facts of other cards.
    """
    complete = all(mentions(answer, spellings) for spellings in facts)
    return complete and not mentions(answer, contradictions) and not out_of_role(answer)


def in_manner(answer: str, manner: str, text: str) -> bool:
    """Whether an answer begins or ends with a text, ignoring punctuation.

    Args:
        answer: The persona's answer.
        manner: `begins with` or `ends with`.
        text: The text to begin or end with.

    Raises:
        ValueError: The manner is unknown.
    """
    words = answer.split()
    size = len(text.split())
    if manner not in ("begins with", "ends with"):
        raise ValueError(f"manner: {manner!r}; allowed: begins with, ends with")
    return mentions(" ".join(words[:size] if manner == "begins with" else words[-size:]), [text])


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("’", "'").split())
