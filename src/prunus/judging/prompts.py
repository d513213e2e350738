"""The prompts to a judge, and the grade in its verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunus.data.values import read_rows
from prunus.errors import DataError
from prunus.judging.config import JudgeConfig

JudgePrompt = tuple[str, str]
"""System prompt and question."""

_TASK = (
    "You grade an answer that an assistant gave to a user. Ask whether it does what the user wants, is right, goes "
    "deep enough, and is well put; its length is no merit. {last}Say in a few sentences what is good and bad about it, "
    'and then give a whole number from 1 to 10, strictly in this form: "[[number]]", as in "Rating: [[5]]".'
)
_LAST = "The conversation has two questions; grade the answer to the second. "
_COMPARE = "Hold it against the reference answer, and name what is wrong. "
_FIRST = "[Question]\n{question}\n\n"
_PAIR = "### User:\n{question_1}\n\n### Assistant:\n{answer_1}\n\n### User:\n{question_2}\n\n### Assistant:\n{answer_2}"
_REFERENCES = "### User:\n{question_1}\n\n### Reference:\n{ref_answer_1}\n\n### User:\n{question_2}\n\n### Reference:\n"
PROMPTS = {
    "single-v1": (_TASK.format(last=""), _FIRST + "[Answer]\n{answer}\n[End of the answer]"),
    "single-math-v1": (
        _TASK.format(last=_COMPARE),
        _FIRST + "[Reference answer]\n{ref_answer_1}\n[End of it]\n\n[Answer]\n{answer}\n[End of the answer]",
    ),
    "single-v1-multi-turn": (_TASK.format(last=_LAST), f"[Conversation]\n{_PAIR}\n[End of the conversation]"),
    "single-math-v1-multi-turn": (
        _TASK.format(last=_LAST + _COMPARE),
        f"[References]\n{_REFERENCES}{{ref_answer_2}}\n[End of them]\n\n[Conversation]\n{_PAIR}\n[End of it]",
    ),
}
"""System prompt and question, for first and later answers, without and with a reference. The names are MT-Bench's, the
texts are not."""


def judge_prompts(config: JudgeConfig, where: str) -> dict[str, JudgePrompt]:
    """The judge's prompts: the built-in ones, or those of a file in MT-Bench's format.

    Args:
        config: The judge's options.
        where: The judge's path in the options, for messages.

    Raises:
        DataError: The file does not exist or lacks a prompt.
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
    prompts: Mapping[str, JudgePrompt],
    questions: Sequence[str],
    answers: Sequence[str],
    reference: Sequence[str] | None = None,
) -> JudgePrompt:
    """Fill in the prompt about the last answer of a conversation; the judge sees at most the last two questions.

    Args:
        prompts: The templates, as `judge_prompts` returns them.
        questions: The user's turns.
        answers: The answer to each.
        reference: Reference answers, which may be fewer.
    """
    turn = len(answers) - 1
    has_reference = reference is not None and len(reference) > turn
    name = ("single-math-v1" if has_reference else "single-v1") + ("-multi-turn" if turn else "")
    values = {
        "question": questions[-1],
        "answer": answers[-1],
        "question_1": questions[-2] if turn else "",
        "question_2": questions[-1],
    }
    values |= {"answer_1": answers[-2] if turn else "", "answer_2": answers[-1]}
    if has_reference and reference is not None:
        values |= {"ref_answer_1": reference[max(turn - 1, 0)], "ref_answer_2": reference[turn]}
    system, template = prompts[name]
    return system, re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def rating(verdict: str) -> float | None:
    """The grade in a verdict, if there is one from 1 to 10."""
    matches = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", verdict) or re.findall(r"\[(\d+(?:\.\d+)?)\]", verdict)
    grade = float(matches[0]) if matches else None
    return grade if grade is not None and 1 <= grade <= 10 else None
