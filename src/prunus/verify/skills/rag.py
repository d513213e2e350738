"""Answering from passages, or saying that they do not hold the answer, as SQuAD 2 and ChatRAG-Bench have it."""

from __future__ import annotations

from prunus.verify.answers import answered
from prunus.verify.skill import SHARE, Check, Scores, Skill, Tools


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Token F1 and exact match."""
    f1, exact = answered(answer, check["answers"])
    return {"f1": (f1, 1), "exact": (exact, 1)}


def reward(scores: Scores, answer: str, check: Check) -> float:
    """The mean of token F1 and exact match; 0 for silence, which is right where a gold answer is an article alone."""
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
