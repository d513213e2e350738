"""What an answer is worth: sums and counts for each metric, so that any mean of them has its interval.

A score is a pair (sum, count): 3 of 4 instructions followed is (3, 4), a right answer (1, 1).
"""

from __future__ import annotations

from collections import Counter
from math import comb
from typing import Any

from prunus.errors import DataError
from prunus.evaluate.ask import TOO_LONG, as_function
from prunus.evaluate.items import Item
from prunus.verify.answers import answered
from prunus.verify.calls import match
from prunus.verify.instructions import verdict
from prunus.verify.persona import consistent, mentions
from prunus.verify.syntax import parse
from prunus.writing.answers import Answer

Scores = dict[str, tuple[float, float]]

FIRST = {
    "instruction_following": ("prompt_strict",),
    "rag": ("f1",),
    "function_calling": ("right",),
    "roleplay": ("judge", "consistent"),
}
"""The metric that counts of each skill; of several the first that is there."""

BINARY = {
    "instruction_following": "prompt_strict",
    "rag": "exact",
    "function_calling": "right",
    "roleplay": "consistent",
}
"""What a sample is right by, for pass@k."""

HEALTH = ("length", "cut_off", "empty", "too_long", "repetition")
"""How writing goes, whatever is written: tokens of an answer; the share of answers that were cut off, are empty, or
were not given since the prompt is too long; and the share of an answer's 4-grams that stood in it before."""

_GRAM = 4


def score(item: Item, skill: str, samples: list[list[Answer]], where: str) -> Scores:
    """The scores of an item: the mean over its samples, and pass@k where there are several.

    Raises:
        DataError: Its check is not of the skill's form.
    """
    try:
        each = [{**_checked(item, skill, answers[-1]), **health(answers)} for answers in samples]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: item {item.id}: its check cannot be read: {error!r}") from None
    count = len(each)
    mean = {
        name: (sum(one[name][0] for one in each) / count, sum(one[name][1] for one in each) / count) for name in each[0]
    }
    if count > 1 and BINARY[skill] in mean:
        right = sum(one[BINARY[skill]][0] == 1 for one in each)
        ks = sorted({1, *(2**i for i in range(1, count.bit_length())), count})
        mean |= {f"pass@{k}": (pass_at(count, right, k), 1.0) for k in ks if k <= count}
    return mean


def _checked(item: Item, skill: str, answer: Answer) -> Scores:
    """What a check says; a question that could not be put is not answered, even where silence would be right."""
    scores: Scores = CHECKERS[skill](item, answer.text)
    return scores if answer is not TOO_LONG else {name: (0.0, count) for name, (_, count) in scores.items()}


def pass_at(count: int, right: int, k: int) -> float:
    """How likely one of k answers is right, if `right` of `count` were (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""
    return 1 - comb(count - right, k) / comb(count, k)


def health(answers: list[Answer]) -> Scores:
    """The scores of `HEALTH` over an item's answers."""
    turns = len(answers)
    grams = [list(zip(*(answer.ids[i:] for i in range(_GRAM)), strict=False)) for answer in answers]
    return {
        "length": (sum(len(answer.ids) for answer in answers), turns),
        "cut_off": (sum(answer.finish == "length" for answer in answers), turns),
        "empty": (sum(not answer.text.strip() for answer in answers), turns),
        "too_long": (sum(answer.finish == "too long" for answer in answers), turns),
        "repetition": (sum(len(of) - len(Counter(of)) for of in grams), sum(map(len, grams))),
    }


def _instructions(item: Item, answer: str) -> Scores:
    found = verdict(answer, item.check["instruction_id_list"], item.check["kwargs"])
    return {
        "prompt_strict": (float(all(found.strict)), 1),
        "prompt_loose": (float(all(found.loose)), 1),
        "instruction_strict": (sum(found.strict), len(found.strict)),
        "instruction_loose": (sum(found.loose), len(found.loose)),
    }


def _rag(item: Item, answer: str) -> Scores:
    f1, exact = answered(answer, item.check["answers"])
    return {"f1": (f1, 1), "exact": (exact, 1)}


def _calls(item: Item, answer: str) -> Scores:
    wanted, calls = item.check["calls"], parse(answer)
    if wanted == "any":
        return {"right": (float(bool(calls)), 1)}
    return {"right": (float(match(calls, [as_function(tool) for tool in item.tools], wanted)), 1)}


def _persona(item: Item, answer: str) -> Scores:
    check = item.check
    scores: Scores = {}
    if "facts" in check:
        facts = [[fact] if isinstance(fact, str) else fact for fact in check["facts"]]
        scores["consistent"] = (float(consistent(answer, facts, check.get("contradictions", ()))), 1)
    if "manner" in check:
        scores["manner"] = (float(_in_manner(answer, *check["manner"])), 1)
    return scores


def _in_manner(answer: str, manner: str, text: str) -> bool:
    """Whether an answer begins or ends with a text, marks apart."""
    words = answer.split()
    size = len(text.split())
    if manner not in ("begins with", "ends with"):
        raise ValueError(f"manner: {manner!r}; allowed: begins with, ends with")
    return mentions(" ".join(words[:size] if manner == "begins with" else words[-size:]), [text])


CHECKERS: dict[str, Any] = {
    "instruction_following": _instructions, "rag": _rag, "function_calling": _calls, "roleplay": _persona
}  # fmt: skip
