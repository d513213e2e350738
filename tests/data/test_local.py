"""Local files: a path is a path, text comes back as it was written, and whatever else lies there ends in a message."""

import bz2
import csv
import gzip
import json
import lzma
from io import StringIO
from itertools import islice
from pathlib import Path

import pandas
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus.data import formats, sources
from prunus.data.chat import conversations
from prunus.data.config import ChatSource, Source, SourceRef
from prunus.data.documents import check_source, documents
from prunus.data.local import FORMATS, LocalRows
from prunus.data.sources import Reader, entries, rows, source_fingerprint
from prunus.errors import DataError
from tests.fuzz import fuzz

TEXTS = [
    "A plum.",
    "2024-01-01",
    "2024-01-01T10:00:00Z",
    "007",
    "1e5",
    "true",
    "null",
    "ünï\u2028\u2029\x85cödé",
    "NaN",
    "\t",
]
ENDINGS = list(FORMATS)
LIMITED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(ending: str, texts: list[str], column: str = "text") -> bytes:
    """A file that holds texts, in a format."""
    table = [{column: text, "n": i} for i, text in enumerate(texts)]
    if ending == ".jsonl":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in table).encode()
    if ending == ".json":
        return json.dumps(table, indent=1).encode()
    if ending == ".csv":
        out = StringIO(newline="")
        csv.writer(out).writerows([[column, "n"], *([row[column], row["n"]] for row in table)])
        return out.getvalue().encode()
    if ending == ".parquet":
        return pandas.DataFrame(table).to_parquet(row_group_size=3)
    return "\n\n".join(texts).encode()


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def source(file: Path, **options) -> Source:
    return Source(path=str(file), **options)


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".JSONL", ".Csv"])
def test_texts_come_as_they_were_written(tmp_path: Path, ending: str, packing: str) -> None:
    file = tmp_path / f"a{ending}{packing.upper()}"
    for start in (b"", b"\xef\xbb\xbf"):  # a byte order mark
        file.write_bytes(PACKED[packing](start + encoded(ending.lower(), TEXTS)))
        assert list(entries(source(file), "x")) == TEXTS
        assert list(documents(source(file), "x")) == TEXTS[:-1]


def test_a_compressed_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    for name, packing in (("a.jsonl", ".zst"), ("b.jsonl.gz", "")):
        (tmp_path / name).write_bytes(PACKED[packing](encoded(".jsonl", TEXTS)))
        assert list(entries(source(tmp_path / name), "x")) == TEXTS


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_that_is_cut_or_damaged_is_refused(tmp_path: Path, packing: str) -> None:
    data = PACKED[packing](encoded(".jsonl", [str(i) * 50 for i in range(3000)]))
    for damaged in (data[: len(data) // 2], data[:300] + bytes(40) + data[340:]):
        (tmp_path / "a.jsonl").write_bytes(damaged)
        with pytest.raises(DataError, match=r"x: .*a\.jsonl"):
            list(documents(source(tmp_path / "a.jsonl"), "x"))


ODD = st.text(st.sampled_from("a1[]{},*?!^$ %#:&=+~@'\"\\;|<>()ü\n-"), min_size=1, max_size=8)
SIBLINGS = ["a", "1", "a1", "aa", "part1", "ü", "11", "aa1"]


@LIMITED
@given(name=ODD, ending=st.sampled_from(ENDINGS))
def test_a_path_is_never_a_pattern(tmp_path: Path, name: str, ending: str) -> None:
    folder = tmp_path / name.strip(".")
    folder.mkdir(exist_ok=True)
    for sibling in SIBLINGS:
        for place in (tmp_path, folder):
            (place / f"{sibling}{ending}").write_bytes(encoded(ending, ["ANOTHER FILE"]))
    if name in SIBLINGS:
        return
    for file in (tmp_path / f"{name}{ending}", folder / f"{name}{ending}"):
        file.write_bytes(encoded(ending, ["the right text"]))
        found = [row["text"] for row in rows(SourceRef(path=str(file)), "x")]
        assert found == list(documents(source(file), "x")) == ["the right text"]
        file.unlink()
        with (
            pytest.raises(DataError, match=r"there is no file")
            if file.stem not in SIBLINGS
            else pytest.raises(DataError)
        ):
            check_source(source(file), "x")


@pytest.mark.parametrize("name", ["**", "?", "[!a]", "{a,b}", "zip:", "https:", "~", "~nobody", " ", "a::b", "hf:"])
def test_names_that_mean_something_to_others(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    (tmp_path / "a.jsonl").write_bytes(encoded(".jsonl", ["ANOTHER FILE"]))
    for path in (f"{name}/a.jsonl", f"{name}//a.jsonl", f"{name}.jsonl", f"{name} .jsonl"):
        Path(path).write_bytes(encoded(".jsonl", ["the right text"]))
        assert list(documents(Source(path=path), "x")) == ["the right text"]
        source_fingerprint(Source(path=path), "x")


def test_home_is_home_unless_a_file_is_called_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(encoded(".jsonl", TEXTS))
    assert list(entries(Source(path="~/a.jsonl"), "x")) == TEXTS
    for path in ("~nobody-here/a.jsonl", "a\0.jsonl", "a" * 5000 + ".jsonl"):
        with pytest.raises(DataError, match="there is no file"):
            check_source(Source(path=path), "x")


@pytest.mark.parametrize("ending", ENDINGS)
def test_reading_resumes_from_every_row(tmp_path: Path, ending: str, monkeypatch) -> None:
    monkeypatch.setattr(formats, "MIN_DOCUMENT", 1)
    texts = [f"text {i}" for i in range(11)]
    file = tmp_path / f"a{ending}"
    file.write_bytes(encoded(ending, texts))
    whole = list(documents(source(file), "x"))
    assert [text.strip() for text in whole] == texts
    for count in range(12):
        reader = Reader(source(file), "x")
        taken = list(islice(reader.documents(), count))
        place = json.loads(json.dumps(reader.state))
        assert taken + list(Reader(source(file), "x", place).documents()) == whole


def test_a_list_of_texts_and_objects_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["a", "b"]', encoding="utf-8")
    assert list(documents(source(tmp_path / "a.json"), "x")) == ["a", "b"]
    (tmp_path / "a.json").write_text('{\n "text":\n "a"}\n\n{"text": "b"}{"text": "c"}', encoding="utf-8")
    assert list(documents(source(tmp_path / "a.json"), "x")) == ["a", "b", "c"]
    (tmp_path / "a.jsonl").write_text(' [{"text": "a"},\n {"text": "b"}]\n', encoding="utf-8")
    assert list(documents(source(tmp_path / "a.jsonl"), "x")) == ["a", "b"]


@LIMITED
@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9) | st.lists(st.integers()), max_size=3)))
def test_a_json_file_is_what_python_reads_whatever_is_read_at_a_time(tmp_path: Path, table: list) -> None:
    file = tmp_path / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 1 << 20):
            patch.setattr(formats, "_CHUNK", size)
            for text in (json.dumps(table), json.dumps(table, indent=2), "\n".join(map(json.dumps, table))):
                file.write_text(f" {text}\n", encoding="utf-8")
                assert list(LocalRows(file, "x")) == table


def test_what_a_row_lacks_is_none_and_what_is_empty_in_csv_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": ""}\n', encoding="utf-8")
    assert list(rows(ChatSource(path=str(tmp_path / "a.jsonl")), "x")) == [{"a": 1, "b": None}, {"a": None, "b": ""}]
    (tmp_path / "a.csv").write_text("a,b\n1,\n,2\n", encoding="utf-8")
    assert list(rows(SourceRef(path=str(tmp_path / "a.csv")), "x")) == [{"a": "1", "b": None}, {"a": None, "b": "2"}]


BAD = [
    (".jsonl", b'{"text": "a"}\n{"text": "b\n{"text": "c"}\n', "line 2 cannot be read: not JSON: .* at character 12"),
    (".jsonl", b'{"text": "a"}\n\n[1]\n', "line 3: holds list, expected an object"),
    (".jsonl", b'{"text": "a"}\n' + b"[" * 100_000 + b"\n", "line 2 cannot be read: nested deeper than 100"),
    (".jsonl", b'{"text": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}\n", "line 1 cannot be read: nested deeper than"),
    (".jsonl", b'{"text": "a", "text": "b"}\n', "line 1 cannot be read: not JSON: duplicate key 'text'"),
    (".jsonl", b'{"text": "a\\ud83d\\ude00"}\n{"text": "a\\ud800"}\n', r"line 2: \\ud800 is a lone surrogate"),
    (".jsonl", b'{"text": "a"}\n{"x": ["\\\\\\uDE00"]}\n', r"line 2: \\ude00 is a lone surrogate"),
    (".jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2 cannot be read: not UTF-8: .* at byte 11"),
    (".jsonl", b'{"text": "a"}\n{"x": "b"}\n', "row 2, holds NoneType"),
    (".jsonl", b'{"n": ' + b"9" * 5000 + b"}\n", "line 1 cannot be read: not JSON"),
    (".json", b'[{"text": "a"} {"text": "b"}]', "after row 1: '{', expected a comma"),
    (".json", b'[{"text": "a"}, ]', "row 2 cannot be read: not JSON"),
    (".json", b'[{"text": "a"}', "after row 1: '', expected a comma or the list's end"),
    (".json", b'[{"text": "a"}] 5', "'5' after the end"),
    (".json", b'[{"text": "a"}, 5]', "row 2: holds int, expected an object"),
    (".json", b"[" * 100_000, "row 1 cannot be read: nested deeper"),
    (".json", b'{"text": "a"}\n{"text": "\xff"}', "not UTF-8|UnicodeDecodeError"),
    (".csv", b'text,n\n"a,1\n', "line 2 cannot be read: not CSV"),
    (".csv", b"text,n\na,1\nb\n", "line 3: 1 cells, expected 2"),
    (".csv", b"text,text\na,1\n", "two columns are called 'text'"),
    (".txt", b"a\n\xff", "line 2 cannot be read: not UTF-8"),
    (".parquet", b"PAR1 no", "cannot be read: Arrow"),
    *((ending, b"", "the file is empty") for ending in ENDINGS),
    *((ending, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull") for ending in ENDINGS),
]  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "message"), BAD, ids=str)
def test_what_cannot_be_read_is_refused_with_file_and_place(tmp_path: Path, ending, content, message) -> None:
    file = tmp_path / f"a{ending}"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(documents(source(file), "data.corpus.0"))
    assert str(caught.value).startswith("data.corpus.0")
    assert str(file) in str(caught.value)


def test_rows_and_documents_have_limits_with_names(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(formats, "MAX_ROW", 200)
    monkeypatch.setattr(sources, "MAX_TEXT", 100)
    for ending in (".jsonl", ".json", ".csv", ".txt"):
        file = tmp_path / f"a{ending}"
        file.write_bytes(encoded(ending, ["a", "b" * 300]))
        with pytest.raises(DataError, match=r"longer than 200 bytes|field larger than field limit"):
            list(documents(source(file), "x"))
    for ending in (".jsonl", ".json", ".csv", ".parquet"):
        file = tmp_path / f"a{ending}"
        file.write_bytes(encoded(ending, ["a", "b" * 150]))
        with pytest.raises(DataError, match=r"row 2, has 150 characters; at most 100"):
            list(documents(source(file), "x"))


def test_only_the_column_is_kept_of_rows_with_many(tmp_path: Path) -> None:
    many = {**{f"k{i}": i for i in range(20_000)}, "text": "plum"}
    (tmp_path / "a.jsonl").write_text(json.dumps(many), encoding="utf-8")
    assert list(documents(source(tmp_path / "a.jsonl"), "x")) == ["plum"]
    with pytest.raises(
        DataError, match=r"no column 'txt' \(did you mean `text`\?\); it has: text and 20000 more"
    ) as caught:
        check_source(source(tmp_path / "a.jsonl", column="txt"), "x")
    assert len(str(caught.value)) < 1000


def test_a_plain_text_is_cut_at_blank_lines_into_documents_of_some_length(tmp_path: Path) -> None:
    paragraph = "plum " * 50 + "\n" + "cherry " * 50 + "\r\n"
    text = "\n\n" + "\n \n\n".join([paragraph] * 40)
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = list(documents(source(tmp_path / "a.txt"), "x"))
    assert 15 < len(found) < 40
    assert all(1_000 <= len(one) < 2_000 for one in found[:-1])
    assert all(one.startswith("plum") and one.endswith("cherry \n") and "\r" not in one for one in found)
    assert "".join(found).split() == text.split()


def test_a_text_without_blank_lines_is_cut_at_the_ends_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plum cherry\n" * 300_000, encoding="utf-8")
    found = list(documents(source(tmp_path / "a.txt"), "x"))
    assert len(found) == 4
    assert max(map(len, found)) < formats.MAX_DOCUMENT + 12
    assert "".join(found) == "plum cherry\n" * 300_000


PIECES = [
    b'{"text": "', b'"}', b"\n", b"[", b"{", b"}", b"]", b",", b'"', b"\\", b"\\ud800", b"\xef\xbb\xbf", b"\xff", b"\r",
    b"\0", b"text", b":", b"\x1f\x8b", b"PAR1", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"1e999", b"NaN",
    b"\xe2\x80\xa8",
]  # fmt: skip


@fuzz(150)
@given(
    data=st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    ending=st.sampled_from(ENDINGS),
)
def test_whatever_bytes_a_file_holds_they_are_rows_or_refused(tmp_path: Path, data: bytes, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    file.write_bytes(data)
    for read in (lambda: list(documents(source(file), "x")), lambda: list(rows(SourceRef(path=str(file)), "x"))):
        try:
            found = read()
        except DataError as error:
            assert str(file) in str(error)
        else:
            assert all(isinstance(row, (str, dict)) for row in found)


@fuzz(150)
@given(at=st.integers(0, 10_000), value=st.binary(min_size=1, max_size=4), packing=st.sampled_from(list(PACKED)),
       ending=st.sampled_from(ENDINGS))  # fmt: skip
def test_whatever_bytes_of_a_good_file_are_changed_it_is_rows_or_refused(
    tmp_path: Path, at: int, value: bytes, packing: str, ending: str
) -> None:
    data = bytearray(PACKED[packing](encoded(ending, TEXTS * 3)))
    data[at % len(data) : at % len(data) + len(value)] = value
    file = tmp_path / f"a{ending}"
    file.write_bytes(data)
    try:
        assert all(isinstance(row, dict) for row in LocalRows(file, str(file)))
    except DataError as error:
        assert str(file) in str(error)


@pytest.mark.parametrize(("label", "expected"), [("1", True), ("True", True), ("false", False), ("0", False)])
def test_conversations_in_csv_have_labels_and_rewards(tmp_path: Path, label: str, expected: bool) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"prompt,completion,label,system\n2024-01-01?,007,{label},\n", encoding="utf-8")
    (row,) = conversations(ChatSource(path=str(file)), "x")
    assert row.desirable is expected
    assert [turn["content"] for turn in row.messages] == ["2024-01-01?", "007"]
    file.write_text("prompt,chosen,rejected,chosen_reward,rejected_reward\na,b,c,1.5,-2\n", encoding="utf-8")
    (row,) = conversations(ChatSource(path=str(file)), "x")
    assert row.rewards == (1.5, -2.0)


def test_columns_that_are_renamed_may_be_missing_in_some_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "a", "a": "b"}\n{"q": "c", "a": "d", "who": "Be brief."}\n', encoding="utf-8")
    columns = {"prompt": "q", "completion": "a", "system": "who"}
    found = [row.messages for row in conversations(ChatSource(path=str(file), columns=columns), "x")]
    assert [len(turns) for turns in found] == [2, 3]
