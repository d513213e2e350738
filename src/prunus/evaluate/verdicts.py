"""What a judge is told, and the grade in what it says."""

from __future__ import annotations

import re
from pathlib import Path

from prunus.errors import DataError
from prunus.evaluate.config import JudgeConfig
from prunus.evaluate.items import read_rows

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


def judge_prompts(config: JudgeConfig) -> dict[str, tuple[str, str]]:
    """The judge's prompts: our own, or those of a file in MT-Bench's form.

    Raises:
        DataError: One is missing there.
    """
    if config.prompts is None:
        return PROMPTS
    where = "evaluate.judge.prompts"
    file = Path(config.prompts).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: {file}: there is no such file")
    rows = {row.get("name"): row for row in read_rows(file, where)}
    missing = [name for name in PROMPTS if not {"system_prompt", "prompt_template"} <= rows.get(name, {}).keys()]
    if missing:
        raise DataError(f"{where}: {file} has no prompt {missing[0]!r} with a system_prompt and a prompt_template")
    return {name: (rows[name]["system_prompt"], rows[name]["prompt_template"]) for name in PROMPTS}


def rating(verdict: str) -> float | None:
    """The grade in a verdict, if there is one from 1 to 10."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", verdict) or re.findall(r"\[(\d+(?:\.\d+)?)\]", verdict)
    grade = float(found[0]) if found else None
    return grade if grade is not None and 1 <= grade <= 10 else None
