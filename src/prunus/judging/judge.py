"""Grades by a judge, as MT-Bench gives them (Zheng et al. 2023, arXiv 2306.05685): answer by answer, from 1 to 10."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prunus.client import Client, RefusedError, Server, shown_answer
from prunus.console import Console
from prunus.errors import DataError, HubError
from prunus.files import read_json_lines
from prunus.fingerprint import digest
from prunus.judging.config import JudgeConfig
from prunus.judging.prompts import Asked, rating

KEY = "PRUNUS_JUDGE_KEY"
SAVED = "judgements.jsonl"
_GIVE_UP = 3  # failed requests in a row after which no more is asked
_Place = TypeVar("_Place", bound=Hashable)


@dataclass
class Tally:
    """What came of asking a judge.

    Attributes:
        asked: Answers to grade.
        graded: Those that have a grade.
        malformed: Those whose verdict has no grade in it.
        missing: Those without a verdict; the next run asks for it.
        refused: Those of them whose request the judge does not take, and may never take.
        failed: Requests that got no verdict.
        hole: Why verdicts are missing, if any are.
    """

    asked: int = 0
    graded: int = 0
    malformed: int = 0
    missing: int = 0
    refused: int = 0
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
        """The grades of all answers, by where each stands; those that cannot be had are left out.

        Raises:
            DataError: The file of verdicts is damaged.
        """
        self.tally.asked = len(wanted)
        if self.config.url is None:
            self.tally.hole = f"{self.where}.url: no judge is given"
            self.tally.missing = len(wanted)
            return {}
        known = self._known()
        left = {digest(asked): asked for asked in wanted.values()}
        left = {key: asked for key, asked in left.items() if key not in known}
        done = len(wanted) - len(left)
        refused: set[str] = set()
        with (
            console.progress("judge", len(wanted), "verdicts") as progress,
            self.saved.open("a", encoding="utf-8", errors="backslashreplace") as file,  # half a pair, as JSON has it
        ):
            for key, verdict in self._ask(left):
                progress.update(done := done + 1)
                if isinstance(verdict, HubError):
                    self._note(verdict)
                    refused |= {key} if isinstance(verdict, RefusedError) else set()
                    continue
                known[key] = rating(verdict)
                line = {"key": key, "rating": known[key], "prompt": left[key][1], "verdict": verdict}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
        keys = {place: digest(asked) for place, asked in wanted.items()}
        grades = {place: grade for place, key in keys.items() if (grade := known.get(key)) is not None}
        self.tally.graded = len(grades)
        self.tally.missing = sum(key not in known for key in keys.values())
        self.tally.refused = sum(key in refused for key in keys.values())
        self.tally.malformed = len(wanted) - len(grades) - self.tally.missing
        return grades

    def _note(self, error: HubError) -> None:
        self.tally.failed += 1
        self.tally.hole = str(error)

    def _known(self) -> dict[str, float | None]:
        """The grades that are saved; a line that a kill left unfinished is cut off."""
        if not self.saved.exists():
            return {}
        os.truncate(self.saved, self.saved.read_bytes().rfind(b"\n") + 1)
        found = {}
        for row in read_json_lines(self.saved, DataError):
            if isinstance(row, dict) and isinstance(row.get("key"), str) and isinstance(row.get("verdict"), str):
                found[row["key"]] = rating(row["verdict"])  # any other row is none, and is asked for again
        return found

    def _ask(self, left: dict[str, Asked]) -> Iterator[tuple[str, str | HubError]]:
        """Verdicts by their keys, as they come, or why there is none; after several of these no more is asked."""
        if not left:
            return
        config, silent = self.config, 0
        server = Server(
            str(config.url), "chat/completions", self.where, os.environ.get(KEY), config.timeout, config.concurrency
        )
        with Client(server) as client:
            futures = {client.ask(self._body(asked), _verdict): key for key, asked in left.items()}
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, HubError):
                    raise error
                silent = 0 if error is None else silent + 1
                yield futures[future], future.result() if error is None else error
                if silent == _GIVE_UP:
                    return

    def _body(self, asked: Asked) -> dict[str, Any]:
        system, user = asked
        return {
            "model": self.config.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "max_tokens": self.config.max_new_tokens,
        }


def _verdict(answer: Any) -> str:
    """What a judge said.

    Raises:
        BadAnswerError: It said it in another form.
    """
    try:
        said = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        said = None
    if not isinstance(said, str):
        raise shown_answer(answer, "chat completions' {choices: [{message: {content}}]}")
    return said
