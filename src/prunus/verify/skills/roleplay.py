"""Playing a persona: staying with the facts of its card and in its manner, or graded by a judge."""

from __future__ import annotations

from prunus.verify.persona import consistent, in_manner, mentions
from prunus.verify.skill import GRADE, SHARE, Check, Scores, Skill, Tools


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Whether the persona stays itself, where facts are given, and in its manner, where one is."""
    scores: Scores = {}
    if "facts" in check:
        scores["consistent"] = (float(consistent(answer, _facts(check), check.get("contradictions", ()))), 1)
    if "manner" in check:
        scores["manner"] = (float(in_manner(answer, *check["manner"])), 1)
    return scores


def reward(scores: Scores, answer: str, check: Check) -> float:
    """The share of what holds, where each fact that the answer has counts by itself too."""
    held = [total for total, _ in scores.values()]
    if "facts" in check:
        held += [float(mentions(answer, fact)) for fact in _facts(check)]
    return sum(held) / len(held)


def _facts(check: Check) -> list[list[str]]:
    """The spellings of each fact."""
    return [[fact] if isinstance(fact, str) else fact for fact in check["facts"]]


SKILL = Skill(
    name="roleplay",
    keys=("facts", "manner"),
    metrics={"judge": GRADE, "consistent": SHARE, "manner": SHARE},
    first=("judge", "consistent"),
    binary="consistent",
    score=score,
    reward=reward,
    judged=True,
)
