"""What a judge is told, and the grade in what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunus.data.values import read_rows
from prunus.errors import DataError
from prunus.judging.config import JudgeConfig

Asked = tuple[str, str]
"""What the judge is told and asked: system prompt and question."""

_TASK = (
    "You grade an answer that an assistant gave to a user. Ask whether it does what the user wants, is right, goes "
    "deep enough, and is well put; its length is no merit. {last}Say in a few sentences what is good and bad about it, "
    'and then give a whole number from 1 to 10, strictly in this form: "[[number]]", as in "Rating: [[5]]".'
)
_LAST = "The conversation has two questions; grade the answer to the second. "
_BESIDE = "Hold it against the reference answer, and name what is wrong. "
_FIRST = "[Question]\n{question}\n\n"
_PAIR = "### User:\n{question_1}\n\n### Assistant:\n{answer_1}\n\n### User:\n{question_2}\n\n### Assistant:\n{answer_2}"
_REFERENCES = "### User:\n{question_1}\n\n### Reference:\n{ref_answer_1}\n\n### User:\n{question_2}\n\n### Reference:\n"
PROMPTS = {
    "single-v1": (_TASK.format(last=""), _FIRST + "[Answer]\n{answer}\n[End of the answer]"),
    "single-math-v1": (
        _TASK.format(last=_BESIDE),
        _FIRST + "[Reference answer]\n{ref_answer_1}\n[End of it]\n\n[Answer]\n{answer}\n[End of the answer]",
    ),
    "single-v1-multi-turn": (_TASK.format(last=_LAST), f"[Conversation]\n{_PAIR}\n[End of the conversation]"),
    "single-math-v1-multi-turn": (
        _TASK.format(last=_LAST + _BESIDE),
        f"[References]\n{_REFERENCES}{{ref_answer_2}}\n[End of them]\n\n[Conversation]\n{_PAIR}\n[End of it]",
    ),
}
"""System prompt and question for the first answer and for later ones, without and with a reference: by MT-Bench's
names, in words of our own."""


def judge_prompts(config: JudgeConfig, where: str) -> dict[str, Asked]:
    """The judge's prompts: our own, or those of a file in MT-Bench's form.

    Args:
        config: Which.
        where: The judge's path in the options, for messages.

    Raises:
        DataError: One is missing there.
    """
    if config.prompts is None:
        return PROMPTS
    where = f"{where}.prompts"
    file = Path(config.prompts).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: {file}: there is no such file")
    rows = {row.get("name"): row for row in read_rows(file, where)}
    missing = [name for name in PROMPTS if not {"system_prompt", "prompt_template"} <= rows.get(name, {}).keys()]
    if missing:
        raise DataError(f"{where}: {file} has no prompt {missing[0]!r} with a system_prompt and a prompt_template")
    return {name: (rows[name]["system_prompt"], rows[name]["prompt_template"]) for name in PROMPTS}


def filled(
    prompts: Mapping[str, Asked], said: Sequence[str], replied: Sequence[str], reference: Sequence[str] | None = None
) -> Asked:
    """What is asked of the judge about the last answer of a conversation; of longer ones it sees the last two.

    Args:
        prompts: As `judge_prompts` gives them.
        said: What the user said, turn by turn.
        replied: What was answered to each.
        reference: Answers to hold it against, as far as there are any.
    """
    turn = len(replied) - 1
    beside = reference is not None and len(reference) > turn
    name = ("single-math-v1" if beside else "single-v1") + ("-multi-turn" if turn else "")
    values = {
        "question": said[-1],
        "answer": replied[-1],
        "question_1": said[-2] if turn else "",
        "question_2": said[-1],
    }
    values |= {"answer_1": replied[-2] if turn else "", "answer_2": replied[-1]}
    if beside and reference is not None:
        values |= {"ref_answer_1": reference[max(turn - 1, 0)], "ref_answer_2": reference[turn]}
    system, template = prompts[name]
    return system, re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def rating(verdict: str) -> float | None:
    """The grade in a verdict, if there is one from 1 to 10."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", verdict) or re.findall(r"\[(\d+(?:\.\d+)?)\]", verdict)
    grade = float(found[0]) if found else None
    return grade if grade is not None and 1 <= grade <= 10 else None
