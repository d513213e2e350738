"""Whether an answer to an item of the world is right, by the checkers that judge the real benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunus.verify.answers import answered
from prunus.verify.calls import match
from prunus.verify.instructions import verdict
from prunus.verify.persona import consistent
from prunus.verify.syntax import parse
from prunus.world.config import Skill

Check = dict[str, Any]
Tools = list[dict[str, Any]]


def right(skill: Skill, answer: str, check: Check, tools: Tools) -> bool:
    """Whether an answer passes.

    Args:
        skill: What was asked for.
        answer: The text as it was written, calls included.
        check: The item's; see `Turn`.
        tools: The schemas of the tools at hand.
    """
    return _RULES[skill](answer, check, tools)


def _instructions(answer: str, check: Check, tools: Tools) -> bool:
    """Whether every instruction is followed, in IFEval's strict sense."""
    return all(verdict(answer, check["instruction_id_list"], check["kwargs"]).strict)


def _roleplay(answer: str, check: Check, tools: Tools) -> bool:
    """Whether what was asked is said, nothing else of the card is, and the manner is kept."""
    manner, word = check["manner"]
    words = answer.strip().strip(".").split(", ")
    kept = len(words) > 1 and words[0 if manner == "begins with" else -1] == word
    return kept and consistent(answer, check["facts"], check["contradictions"])


def _rag(answer: str, check: Check, tools: Tools) -> bool:
    """Whether answer and passage are those that are wanted, or it is said that there is none."""
    return bool(answer.strip()) and answered(answer, check["answers"])[1] == 1


def _calls(answer: str, check: Check, tools: Tools) -> bool:
    """Whether the calls are those that are wanted and no others; where none is, whether something is said instead."""
    calls = parse(answer)
    if not check["calls"]:
        return bool(answer.strip()) and not calls and "{" not in answer
    return match(calls, [tool["function"] for tool in tools], check["calls"])


_RULES: dict[Skill, Callable[[str, Check, Tools], bool]] = {
    "instruction_following": _instructions,
    "roleplay": _roleplay,
    "rag": _rag,
    "function_calling": _calls,
}
