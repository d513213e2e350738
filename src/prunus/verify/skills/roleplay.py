"""Playing a persona: consistent with the facts and manner of its card, or graded by a judge."""

from __future__ import annotations

from prunus.verify.persona import consistent, in_manner, mentions
from prunus.verify.skill import GRADE, SHARE, Check, Scores, Skill, Tools


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Whether the answer is consistent with the given facts, and has the given manner."""
    scores: Scores = {}
    if "facts" in check:
        scores["consistent"] = (float(consistent(answer, _facts(check), check.get("contradictions", ()))), 1)
    if "manner" in check:
        scores["manner"] = (float(in_manner(answer, *check["manner"])), 1)
    return scores


def reward(scores: Scores, answer: str, check: Check) -> float:
    """The mean of the scores and, for each fact, of whether the answer mentions it."""
    passed = [total for total, _ in scores.values()]
    if "facts" in check:
        passed += [float(mentions(answer, fact)) for fact in _facts(check)]
    return sum(passed) / len(passed)


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
