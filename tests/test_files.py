import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.errors import DataError, ModelError
from prunus.files import depth_exceeds, read_json, read_json_lines, read_object, read_text, replace_json, replace_text
from tests.fuzz import fuzz


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested deeper than 100"),
        (b"[" * 200 + b"]" * 200, "nested deeper than 100"),
        (b"9" * 5000, "not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    ],
)
def test_a_file_that_is_not_json_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_json(file, ModelError)
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(DataError, match="cannot be read"):
            read_text(file, DataError)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(file, DataError) == {"a": 1}
    assert list(read_json_lines(file, DataError)) == [{"a": 1}]


def test_an_object_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[]")
    with pytest.raises(ModelError, match="holds list, expected an object"):
        read_object(file, ModelError)


@fuzz(100)
@given(rows=st.lists(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=["Cs"]))), max_size=5))
def test_json_lines_come_back_whatever_is_in_them(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    rows = [{"fixed": "a\u2028b\u2029c\u0085d\x0be"}, *rows]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    file.write_bytes(text)
    assert list(read_json_lines(file, DataError)) == rows


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match="line 3: not JSON"):
        list(read_json_lines(file, DataError))
    file.write_bytes(b'{"a": 1}\n"\xff"\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(read_json_lines(file, DataError))


@given(depth=st.integers(0, 30), limit=st.integers(0, 30))
def test_depth_counts_levels_of_nesting(depth: int, limit: int) -> None:
    value: object = 1
    for level in range(depth):
        value = [value, "x"] if level % 2 else {"a": value}
    assert depth_exceeds(value, limit) == (depth > limit)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.json"
    replace_json(file, {"step": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_json(file, {"step": 2})
    assert read_json(file, DataError) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_values_that_json_cannot_hold_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace_json(tmp_path / "a.json", {"loss": float("nan")})
    replace_text(tmp_path / "a.txt", "ü\u2028")
    assert read_text(tmp_path / "a.txt", DataError) == "ü\u2028"
