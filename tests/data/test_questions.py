"""Files of questions and of items, in the ways that they are written."""

import json
from pathlib import Path

import pytest

from prunus.data.questions import read_questions
from prunus.data.values import read_rows
from prunus.errors import DataError

GOOD = {"query": "Question: a\u2028b?\x85\nAnswer:", "choices": ["x", "y"], "gold": 0}


@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
@pytest.mark.parametrize("escaped", [True, False])
def test_separators_of_lines_in_texts_separate_no_rows(tmp_path: Path, start: str, escaped: bool) -> None:
    file = tmp_path / "q.jsonl"
    line = json.dumps(GOOD, ensure_ascii=escaped)
    file.write_text(f"{start}{line}\n\n{line}\r\n{line}", encoding="utf-8", newline="")
    assert read_questions(file, 2) == [GOOD] * 2
    assert read_questions(file, 9) == read_rows(file, "x") == [GOOD] * 3


def test_rows_come_in_a_list_by_lines_or_as_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in (json.dumps([GOOD, GOOD], indent=2), f"{json.dumps(GOOD)}\n{json.dumps(GOOD, indent=1)}"):
        file.write_text(text, encoding="utf-8")
        assert read_rows(file, "x") == [GOOD, GOOD]
    whole = {"version": "1.1", "data": [{"title": "Plums"}]}
    file.write_text(json.dumps(whole, indent=2), encoding="utf-8")
    assert read_rows(file, "x") == [whole]
    file.write_bytes(b"")
    assert read_rows(file, "x") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n", "holds no question"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"[" * 100_000, "nested deeper"),
        (b"5\n", "line 1: holds int, expected an object"),
        (b'{"query": "a"}\n', "line 1 has query; expected {context, continuation} or"),
        (b'{"query": "a", "choices": 5, "gold": 0}\n', "line 1: the answers are 5; expected a list of texts"),
        (b'{"query": "a", "choices": ["b", 1], "gold": 0}\n', "expected a list of texts"),
        (b'{"query": ["a"], "choices": ["b"], "gold": 0}\n', "query is .*; expected text"),
        (b'{"context": null, "continuation": "b"}\n', "context is None; expected text"),
        *(
            (json.dumps({**GOOD, "gold": gold}).encode(), "gold is .*a number from 0 to 1")
            for gold in (2, -1, None, "0", [0], True)
        ),
    ],
    ids=str,
)
def test_what_is_no_question_is_refused_with_its_row(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_questions(file, 9)
    assert str(caught.value).startswith(f"score.task: {file}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (lambda: read_questions(tmp_path / "no", 1), lambda: read_rows(tmp_path / "no", "score.task")):
        with pytest.raises(DataError, match="no: cannot be read: FileNotFoundError"):
            read()
