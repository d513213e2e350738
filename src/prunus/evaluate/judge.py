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
from prunus.evaluate.items import Item
from prunus.evaluate.verdicts import judge_prompts, rating
from prunus.fingerprint import digest
from prunus.writing.answers import Answer
from prunus.writing.server import post

KEY = "PRUNUS_JUDGE_KEY"
SAVED = "judgements.jsonl"
_GIVE_UP = 3  # requests in a row that the judge does not answer


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
        """The grades that are saved; a line that a kill left unfinished is cut off."""
        if not self.saved.exists():
            return {}
        os.truncate(self.saved, self.saved.read_bytes().rfind(b"\n") + 1)
        rows = map(json.loads, self.saved.read_text(encoding="utf-8").splitlines())
        return {row["key"]: row["rating"] for row in rows}

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
