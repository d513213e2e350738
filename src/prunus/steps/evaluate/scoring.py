"""Scores of an item: its answers' scores by the skill's rules, and the health of the generated text."""

from __future__ import annotations

from prunus.errors import DataError
from prunus.inference.answers import Answer
from prunus.steps.evaluate.answers import TOO_LONG
from prunus.steps.evaluate.items import Item
from prunus.verify.reward import pass_at
from prunus.verify.skill import Scores
from prunus.verify.skills import SKILLS

HEALTH = ("length", "cut_off", "empty", "too_long", "repetition")
"""Metrics of any generated text: tokens of an answer; the shares of answers that were cut off, are empty, or were not
generated because the prompt is too long; and the share of an answer's 4-grams that repeat an earlier one."""


def score(item: Item, skill: str, samples: list[list[Answer]], where: str) -> Scores:
    """The scores of an item: the mean over its samples, and pass@k if there are several.

    Raises:
        DataError: Its check does not have the skill's form.
    """
    try:
        each = [{**_checked(item, skill, answers[-1]), **health(answers)} for answers in samples]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: item {item.id}: its check cannot be read: {error!r}") from None
    count = len(each)
    mean = {
        name: (sum(one[name][0] for one in each) / count, sum(one[name][1] for one in each) / count) for name in each[0]
    }
    binary = SKILLS[skill].binary
    if count > 1 and binary in mean:
        right = sum(one[binary][0] == 1 for one in each)
        ks = sorted({1, *(2**i for i in range(1, count.bit_length())), count})
        mean |= {f"pass@{k}": (pass_at(count, right, k), 1.0) for k in ks if k <= count}
    return mean


def _checked(item: Item, skill: str, answer: Answer) -> Scores:
    """The scores by the skill's rules; 0 if the prompt was too long, even if an empty answer would be right."""
    scores = SKILLS[skill].score(answer.text, item.check, item.tools)
    return scores if answer is not TOO_LONG else {name: (0.0, count) for name, (_, count) in scores.items()}


def health(answers: list[Answer]) -> Scores:
    """The scores of `HEALTH` over an item's answers."""
    turns = len(answers)
    repeated = [answer.repeated() for answer in answers]
    return {
        "length": (sum(len(answer.ids) for answer in answers), turns),
        "cut_off": (sum(answer.finish == "length" for answer in answers), turns),
        "empty": (sum(not answer.text.strip() for answer in answers), turns),
        "too_long": (sum(answer.finish == "too long" for answer in answers), turns),
        "repetition": (sum(one for one, _ in repeated), sum(count for _, count in repeated)),
    }
