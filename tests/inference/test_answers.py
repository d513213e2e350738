"""Answers that are kept are found again, and what is none is asked for again."""

from pathlib import Path

import pytest

from prunus.inference.answers import Answer, AnswerStore


@pytest.mark.parametrize(
    "damage",
    [b"", b"\n", b"5\n", b"[]\n", b"{}\n", b'{"number": true, "ids": [], "text": "", "finish": "stop"}\n', b"\xff\n",
     b'{"number": 1, "ids": 5, "text": "", "finish": "stop"}\n', b"[" * 9999 + b"\n", b'{"number": 1, "ids": [1]'],
)  # fmt: skip
def test_damaged_lines_are_no_answers(tmp_path: Path, damage: bytes) -> None:
    kept = AnswerStore(tmp_path)
    first, last = Answer([1, 2], "a\u2028b \ud800", "stop"), Answer([], "", "length")
    with kept.writing() as file:
        kept.add(file, 0, first)
    with kept.file.open("ab") as file:
        file.write(damage)
    kept = AnswerStore(tmp_path)
    assert len(kept) == 1
    with kept.writing() as file:
        kept.add(file, 2, last)
    kept = AnswerStore(tmp_path)
    assert [kept.read(0), kept.read(2)] == [first, last]
    assert 1 not in kept
