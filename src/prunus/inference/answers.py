"""Answers, and where they are kept while a step is at work, so that none is ever asked for twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from prunus import distributed
from prunus.errors import DataError
from prunus.files import parse_json


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        ids: Its tokens, the one that ends it included where there is one.
        text: The same as text, without special tokens, and without what stopped it; a lone surrogate, which UTF-8
            cannot write, becomes U+FFFD.
        finish: `stop` where it came to an end, `length` where it was cut off.
    """

    ids: list[int]
    text: str
    finish: str

    def __post_init__(self) -> None:
        if not self.text.isascii():
            whole = self.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            object.__setattr__(self, "text", whole)


class Kept:
    """The answers there are so far, a line each, in a file for each process.

    Args:
        out: The step's folder. Another number of processes goes on from the same answers.
        name: What is written, where a step keeps several.
    """

    def __init__(self, out: Path, name: str = "generate") -> None:
        self.root = out / "checkpoints"
        self.name = name
        self.file = self.root / f"{name}-{distributed.rank()}" / "answers.jsonl"
        self.places: dict[int, tuple[Path, int]] = {}
        self.find()

    def find(self) -> None:
        """Note where each prompt's answer is. A line that a kill left unfinished, or that is damaged, is none."""
        for file in sorted(self.root.glob("*/answers.jsonl")):
            if not file.parent.name.removeprefix(f"{self.name}-").isdigit():
                continue  # another's, whose name may begin as this one's does
            place = 0
            with file.open("rb") as lines:
                for line in lines:
                    number = _number_of(line)
                    if number is not None:
                        self.places[number] = (file, place)
                    place += len(line)

    def __contains__(self, number: int) -> bool:
        return number in self.places

    def __len__(self) -> int:
        return len(self.places)

    def read(self, number: int) -> Answer:
        """The answer to a prompt."""
        file, place = self.places[number]
        with file.open("rb") as handle:
            handle.seek(place)
            line = json.loads(handle.readline())
        return Answer(line["ids"], line["text"], line["finish"])

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Open this process's file behind its last whole line."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as handle:
            whole = self.file.read_bytes().rfind(b"\n") + 1
            os.truncate(self.file, whole)
            yield handle

    def add(self, handle: IO[bytes], number: int, answer: Answer) -> None:
        """Keep an answer; a kill after this does not lose it."""
        handle.write(json.dumps({"number": number, **asdict(answer)}).encode() + b"\n")
        handle.flush()
        (self.file.parent / "complete").touch()  # an unfinished step with this is gone on with, and not removed
        self.places.setdefault(number, (self.file, -1))


def _number_of(line: bytes) -> int | None:
    """The number of the prompt that a line answers, or None where it holds no answer."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = parse_json(line, DataError, "")
        number, ids, text = row["number"], row["ids"], row["text"]
    except (DataError, LookupError, TypeError):
        return None
    whole = type(number) is int and isinstance(ids, list) and isinstance(text, str) and "finish" in row
    return number if whole else None
