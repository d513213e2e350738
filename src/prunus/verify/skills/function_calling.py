"""Calling functions, as the Berkeley Function-Calling Leaderboard has it."""

from __future__ import annotations

from prunus.verify.calls import as_function, match
from prunus.verify.skill import SHARE, Check, Scores, Skill, Tools
from prunus.verify.syntax import parse

_NAMED = 0.2  # the reward of calling the right functions with other arguments


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Whether the calls are a possible answer; where `calls` is "any", whether there are any."""
    calls, wanted = parse(answer), check["calls"] or ()
    right = bool(calls) if wanted == "any" else match(calls, [as_function(tool) for tool in tools], wanted)
    return {"right": (float(right), 1)}


def reward(scores: Scores, answer: str, check: Check) -> float:
    """1 where the calls are right, and less than right or wrong in two cases.

    The right functions with other arguments earn 0.2. Where no call is wanted, silence and what looks like a call that
    went wrong earn nothing, though the leaderboard counts both as right: a model would learn to say nothing.
    """
    right, wanted = scores["right"][0], check["calls"]
    if not wanted:
        return right if answer.strip() and "{" not in answer else 0.0
    if right or wanted == "any":
        return right
    called = {call.name for call in parse(answer)}
    return _NAMED if called and called <= {name for call in wanted for name in call} else 0.0


SKILL = Skill(
    name="function_calling",
    keys=("calls",),
    metrics={"right": SHARE},
    first=("right",),
    binary="right",
    score=score,
    reward=reward,
)
