"""What an answer is worth by the check of its question: a number from 0 to 1, and finer than right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.errors import DataError
from prunus.verify.answers import answered
from prunus.verify.calls import match
from prunus.verify.instructions import verdict
from prunus.verify.persona import consistent, mentions
from prunus.verify.syntax import parse

Tools = Sequence[Mapping[str, Any]]


def reward(answer: str, check: Mapping[str, Any], tools: Tools, where: str) -> float:
    """The reward of an answer.

    Args:
        answer: As it was written, calls included.
        check: `{instruction_id_list, kwargs}` as in IFEval: the share of instructions that are followed. `{answers}` as
            in SQuAD: the mean of token F1 and exact match; none where there is no answer. `{calls}` as in BFCL: 1 where
            the calls match, 0.2 where functions are called with other arguments, else 0. `{facts, contradictions}` and
            `{manner}`: the share of what holds.
        tools: The functions at hand.
        where: The row, for messages.

    Raises:
        DataError: The check is of no known form.
    """
    try:
        if "instruction_id_list" in check:
            found = verdict(answer, check["instruction_id_list"], check["kwargs"]).strict
            return sum(found) / len(found)
        if "answers" in check:
            return sum(answered(answer, check["answers"])) / 2 if answer.strip() else 0.0
        if "calls" in check:
            return _calls(answer, check["calls"], tools)
        if "facts" in check or "manner" in check:
            return _persona(answer, check)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: its check cannot be read: {error!r}") from None
    raise DataError(
        f"{where}: its check has {', '.join(check)}; wanted: instruction_id_list, answers, calls, facts, manner"
    )


def _calls(answer: str, wanted: Any, tools: Tools) -> float:
    calls = parse(answer)
    if not wanted:
        return float(bool(answer.strip()) and not calls and "{" not in answer)
    if match(calls, [dict(tool.get("function", tool)) for tool in tools], wanted):
        return 1.0
    named = {name for call in wanted for name in call}
    return 0.2 if calls and {call.name for call in calls} <= named else 0.0


def _persona(answer: str, check: Mapping[str, Any]) -> float:
    held = []
    if "facts" in check:
        facts = [[fact] if isinstance(fact, str) else fact for fact in check["facts"]]
        held += [float(mentions(answer, fact)) for fact in facts]
        held.append(float(consistent(answer, facts, check.get("contradictions", ()))))
    if "manner" in check:
        manner, text = check["manner"]
        words, size = answer.split(), len(text.split())
        held.append(float(mentions(" ".join(words[:size] if manner == "begins with" else words[-size:]), [text])))
    return sum(held) / len(held)
