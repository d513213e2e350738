"""Instruction following, as in IFEval."""

from __future__ import annotations

from prunus.verify.instructions import verdict
from prunus.verify.skill import SHARE, Check, Scores, Skill, Tools


def score(answer: str, check: Check, tools: Tools) -> Scores:
    """Whether all instructions are followed, and how many of them are, by the strict and the loose reading."""
    found = verdict(answer, check["instruction_id_list"], check["kwargs"])
    return {
        "prompt_strict": (float(all(found.strict)), 1),
        "prompt_loose": (float(all(found.loose)), 1),
        "instruction_strict": (sum(found.strict), len(found.strict)),
        "instruction_loose": (sum(found.loose), len(found.loose)),
    }


def reward(scores: Scores, answer: str, check: Check) -> float:
    """The share of instructions that are followed by the strict reading."""
    followed, count = scores["instruction_strict"]
    return followed / count


SKILL = Skill(
    name="instruction_following",
    keys=("instruction_id_list",),
    metrics=dict.fromkeys(("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"), SHARE),
    first=("prompt_strict",),
    binary="prompt_strict",
    score=score,
    reward=reward,
)
