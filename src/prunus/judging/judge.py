"""Grades by a judge as in MT-Bench (Zheng et al. 2023, arXiv 2306.05685): each answer by itself, from 1 to 10."""

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
from prunus.judging.prompts import JudgePrompt, rating

KEY = "PRUNUS_JUDGE_KEY"
SAVED = "judgements.jsonl"
_GIVE_UP = 3  # failed requests in a row after which no more are sent
_Key = TypeVar("_Key", bound=Hashable)


@dataclass
class Tally:
    """Counts of what a judge returned.

    Attributes:
        asked: Answers to grade.
        graded: Answers with a grade.
        malformed: Answers whose verdict contains no grade.
        missing: Answers without a verdict; the next run requests it again.
        refused: The missing ones whose request the server rejected, so that a retry may not help.
        failed: Requests without a verdict.
        hole: The reason of missing verdicts, if there are any.
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
    """A judge and its verdicts so far, so that no verdict is requested twice.

    Attributes:
        config: The judge's options.
        saved: The file of its verdicts, one per line.
        where: The option's path that errors name, such as `evaluate.judge`.
        tally: Counts of its verdicts.
    """

    config: JudgeConfig
    saved: Path
    where: str
    tally: Tally = field(default_factory=Tally)

    def grade(self, prompts: Mapping[_Key, JudgePrompt], console: Console) -> dict[_Key, float]:
        """Have answers graded.

        Args:
            prompts: The prompts to the judge, by any key.
            console: Shows the progress.

        Returns:
            The grades, by the same keys; missing ones are left out.

        Raises:
            DataError: The file of verdicts is damaged.
        """
        self.tally.asked = len(prompts)
        if self.config.url is None:
            self.tally.hole = f"{self.where}.url: no judge is given"
            self.tally.missing = len(prompts)
            return {}
        known = self._known()
        left = {digest(prompt): prompt for prompt in prompts.values()}
        left = {key: prompt for key, prompt in left.items() if key not in known}
        done = len(prompts) - len(left)
        refused: set[str] = set()
        with (
            console.progress("judge", len(prompts), "verdicts") as progress,
            self.saved.open("a", encoding="utf-8", errors="backslashreplace") as file,  # lone surrogates, as in JSON
        ):
            for key, verdict in self._request(left):
                progress.update(done := done + 1)
                if isinstance(verdict, HubError):
                    self._note(verdict)
                    refused |= {key} if isinstance(verdict, RefusedError) else set()
                    continue
                known[key] = rating(verdict)
                line = {"key": key, "rating": known[key], "prompt": left[key][1], "verdict": verdict}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
        keys = {name: digest(prompt) for name, prompt in prompts.items()}
        grades = {name: grade for name, key in keys.items() if (grade := known.get(key)) is not None}
        self.tally.graded = len(grades)
        self.tally.missing = sum(key not in known for key in keys.values())
        self.tally.refused = sum(key in refused for key in keys.values())
        self.tally.malformed = len(prompts) - len(grades) - self.tally.missing
        return grades

    def _note(self, error: HubError) -> None:
        self.tally.failed += 1
        self.tally.hole = str(error)

    def _known(self) -> dict[str, float | None]:
        """The saved grades, by digest of the prompt; a last line that a kill left unfinished is removed."""
        if not self.saved.exists():
            return {}
        os.truncate(self.saved, self.saved.read_bytes().rfind(b"\n") + 1)
        result = {}
        for row in read_json_lines(self.saved, DataError):
            if isinstance(row, dict) and isinstance(row.get("key"), str) and isinstance(row.get("verdict"), str):
                result[row["key"]] = rating(row["verdict"])  # other rows are ignored, and requested again
        return result

    def _request(self, left: dict[str, JudgePrompt]) -> Iterator[tuple[str, str | HubError]]:
        """Yield keys with verdicts or errors, as they arrive; stop after several errors in a row."""
        if not left:
            return
        config, failures = self.config, 0
        server = Server(
            str(config.url), "chat/completions", self.where, os.environ.get(KEY), config.timeout, config.concurrency
        )
        with Client(server) as client:
            futures = {client.post(self._body(prompt), _verdict): key for key, prompt in left.items()}
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, HubError):
                    raise error
                failures = 0 if error is None else failures + 1
                yield futures[future], future.result() if error is None else error
                if failures == _GIVE_UP:
                    return

    def _body(self, prompt: JudgePrompt) -> dict[str, Any]:
        system, user = prompt
        return {
            "model": self.config.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "max_tokens": self.config.max_new_tokens,
        }


def _verdict(answer: Any) -> str:
    """The text of a verdict.

    Raises:
        BadAnswerError: The response has another form.
    """
    try:
        text = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise shown_answer(answer, "chat completions' {choices: [{message: {content}}]}")
    return text
