"""Function calling, as in the Berkeley Function-Calling Leaderboard."""

from __future__ import annotations

from prunus.verify.calls import as_function, match
from prunus.verify.skill import SHARE, Check, Scores, Skill, Tools
from prunus.verify.syntax import parse

_NAMED = 0.2  # the reward of calling the right functions with wrong arguments


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Whether the calls are a possible answer; if `calls` is "any", whether there are any."""
    calls, expected = parse(answer), check["calls"] or ()
    right = bool(calls) if expected == "any" else match(calls, [as_function(tool) for tool in tools], expected)
    return {"right": (float(right), 1)}


def reward(scores: Scores, answer: str, check: Check) -> float:
    """1 if the calls are right, else 0, with two exceptions.

    The right functions with wrong arguments earn 0.2. If no call is expected, an empty answer and a malformed call earn
    0, though the leaderboard counts both as right: the model would learn to answer nothing.
    """
    right, expected = scores["right"][0], check["calls"]
    if not expected:
        return right if answer.strip() and "{" not in answer else 0.0
    if right or expected == "any":
        return right
    called = {call.name for call in parse(answer)}
    return _NAMED if called and called <= {name for call in expected for name in call} else 0.0


SKILL = Skill(
    name="function_calling",
    keys=("calls",),
    metrics={"right": SHARE},
    first=("right",),
    binary="right",
    score=score,
    reward=reward,
)
