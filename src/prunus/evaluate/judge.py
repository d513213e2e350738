"""Grades by a judge, as MT-Bench gives them (Zheng et al. 2023, arXiv 2306.05685): answer by answer, from 1 to 10."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.errors import DataError, PrunusError
from prunus.evaluate.ask import transcript
from prunus.evaluate.config import JudgeConfig
from prunus.evaluate.items import Item, read_rows
from prunus.fingerprint import digest
from prunus.writing.answers import Answer
from prunus.writing.server import post

KEY = "PRUNUS_JUDGE_KEY"
SAVED = "judgements.jsonl"
_GIVE_UP = 3  # requests in a row that the judge does not answer

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


@dataclass
class Tally:
    """What came of asking a judge.

    Attributes:
        asked: Answers to grade.
        graded: Those that have a grade.
        malformed: Verdicts without a grade in them.
        failed: Requests that were refused, or not answered in time.
        hole: Why no grade was given at all, or no more, if so.
    """

    asked: int = 0
    graded: int = 0
    malformed: int = 0
    failed: int = 0
    hole: str | None = None


@dataclass(frozen=True)
class Judge:
    """A judge, and what it has said so far, so that nothing is asked twice.

    Attributes:
        config: Who it is.
        saved: The file of its verdicts, one a line.
        tally: What came of it.
    """

    config: JudgeConfig
    saved: Path
    tally: Tally = field(default_factory=Tally)

    def grade(
        self, items: list[Item], given: list[list[list[Answer]]], console: Console
    ) -> dict[tuple[int, int, int], float]:
        """The grades of all answers that want one, by item, sample and turn; those that cannot be had are left out.

        Raises:
            DataError: The file of prompts is not in MT-Bench's form.
        """
        wanted = dict(_wanted(items, given, judge_prompts(self.config)))
        self.tally.asked = len(wanted)
        if self.config.url is None:
            self.tally.hole = "evaluate.judge.url: no judge is given"
            return {}
        known = self._known()
        left = {place: asked for place, asked in wanted.items() if digest(asked) not in known}
        with console.progress("judge", len(wanted), "verdicts") as progress, self.saved.open("a") as file:
            for asked, verdict in self._ask(left):
                known[digest(asked)] = rating(verdict)
                line = {"key": digest(asked), "rating": known[digest(asked)], "prompt": asked[1], "verdict": verdict}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                progress.update(len(known))
        grades = {place: known.get(digest(asked)) for place, asked in wanted.items()}
        self.tally.graded = sum(grade is not None for grade in grades.values())
        self.tally.malformed = sum(digest(asked) in known for asked in wanted.values()) - self.tally.graded
        return {place: grade for place, grade in grades.items() if grade is not None}

    def _known(self) -> dict[str, float | None]:
        lines = self.saved.read_text(encoding="utf-8").splitlines() if self.saved.exists() else []
        found = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # a line that a kill left unfinished
                continue
            found[row["key"]] = row["rating"]
        return found

    def _ask(self, wanted: dict[Any, tuple[str, str]]) -> Iterator[tuple[tuple[str, str], str]]:
        """Verdicts as they come; after several failures in a row no more is asked."""
        pool = ThreadPoolExecutor(self.config.concurrency)
        futures: dict[Future[str], tuple[str, str]] = {
            pool.submit(self._one, asked): asked for asked in wanted.values()
        }
        silent = 0
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                    silent = 0
                except PrunusError as error:
                    self.tally.failed += 1
                    silent += 1
                    if silent == min(_GIVE_UP, len(futures)):
                        self.tally.hole = str(error)
                        return
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, asked: tuple[str, str]) -> str:
        system, user = asked
        body = {
            "model": self.config.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "max_tokens": self.config.max_new_tokens,
        }
        where, key = "evaluate.judge", os.environ.get(KEY)
        answer = post(str(self.config.url), "chat/completions", body, where, key, self.config.timeout)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (LookupError, TypeError):
            raise DataError(f"{where}.url: answers {json.dumps(answer)[:200]!r}; chat completions are wanted") from None


def rating(verdict: str) -> float | None:
    """The grade in a verdict, if there is one from 1 to 10."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", verdict) or re.findall(r"\[(\d+(?:\.\d+)?)\]", verdict)
    grade = float(found[0]) if found else None
    return grade if grade is not None and 1 <= grade <= 10 else None


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


def _wanted(
    items: list[Item], given: list[list[list[Answer]]], prompts: dict[str, tuple[str, str]]
) -> Iterator[tuple[tuple[int, int, int], tuple[str, str]]]:
    for i, item in enumerate(items):
        if not item.check.get("judge"):
            continue
        for sample, answers in enumerate(given[i]):
            for turn, (said, replied) in enumerate(transcript(item, answers)):
                yield (i, sample, turn), _filled(item.check.get("reference"), said, replied, prompts)


def _filled(
    reference: list[str] | None, said: list[str], replied: list[str], prompts: dict[str, tuple[str, str]]
) -> tuple[str, str]:
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
