"""Answering from passages, or stating that they do not contain the answer, as in SQuAD 2 and ChatRAG-Bench."""

from __future__ import annotations

from prunus.verify.answers import answered
from prunus.verify.skill import SHARE, Check, Scores, Skill, Tools


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Token F1 and exact match."""
    f1, exact = answered(answer, check["answers"])
    return {"f1": (f1, 1), "exact": (exact, 1)}


def reward(scores: Scores, answer: str, check: Check) -> float:
    """The mean of token F1 and exact match; 0 for an empty answer, even if a gold answer is only an article."""
    return (scores["f1"][0] + scores["exact"][0]) / 2 if answer.strip() else 0.0


SKILL = Skill(
    name="rag",
    keys=("answers",),
    metrics={"f1": SHARE, "exact": SHARE},
    first=("f1",),
    binary="exact",
    score=score,
    reward=reward,
)
