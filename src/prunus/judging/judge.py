"""Grades by a judge, as MT-Bench gives them (Zheng et al. 2023, arXiv 2306.05685): answer by answer, from 1 to 10."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prunus.console import Console
from prunus.errors import DataError, PrunusError
from prunus.fingerprint import digest
from prunus.judging.config import JudgeConfig
from prunus.judging.prompts import Asked, rating
from prunus.writing.server import post

KEY = "PRUNUS_JUDGE_KEY"
SAVED = "judgements.jsonl"
_GIVE_UP = 3  # requests in a row that the judge does not answer
_Place = TypeVar("_Place", bound=Hashable)


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
        where: The option's path that errors name, such as `evaluate.judge`.
        tally: What came of it.
    """

    config: JudgeConfig
    saved: Path
    where: str
    tally: Tally = field(default_factory=Tally)

    def grade(self, wanted: Mapping[_Place, Asked], console: Console) -> dict[_Place, float]:
        """The grades of all answers, by where each stands; those that cannot be had are left out."""
        self.tally.asked = len(wanted)
        if self.config.url is None:
            self.tally.hole = f"{self.where}.url: no judge is given"
            return {}
        known = self._known()
        left = {digest(asked): asked for asked in wanted.values()}
        left = {key: asked for key, asked in left.items() if key not in known}
        done = len(wanted) - len(left)
        with console.progress("judge", len(wanted), "verdicts") as progress, self.saved.open("a") as file:
            for key, verdict in self._ask(left):
                known[key] = rating(verdict)
                line = {"key": key, "rating": known[key], "prompt": left[key][1], "verdict": verdict}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                progress.update(done := done + 1)
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

    def _ask(self, left: dict[str, Asked]) -> Iterator[tuple[str, str]]:
        """Verdicts by their keys, as they come; after several failures in a row no more is asked."""
        pool = ThreadPoolExecutor(self.config.concurrency)
        futures: dict[Future[str], str] = {pool.submit(self._one, asked): key for key, asked in left.items()}
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

    def _one(self, asked: Asked) -> str:
        system, user = asked
        body = {
            "model": self.config.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "max_tokens": self.config.max_new_tokens,
        }
        key = os.environ.get(KEY)
        answer = post(str(self.config.url), "chat/completions", body, self.where, key, self.config.timeout)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (LookupError, TypeError):
            raise DataError(
                f"{self.where}.url: answers {json.dumps(answer)[:200]!r}; chat completions are wanted"
            ) from None
