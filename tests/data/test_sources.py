import gzip
import json
from pathlib import Path

import pytest

from prunus.data.config import DataConfig, Source
from prunus.data.documents import check_source, documents
from prunus.data.sources import source_fingerprint, sources_fingerprint
from prunus.errors import DataError, PrunusError

TEXTS = ["A plum.", "A cherry,\nand another.", "An almond: ünïcödé"]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz"])
def test_every_format_gives_the_same_documents(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"text{ending}"
    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    lines = "\n".join(json.dumps(row) for row in rows)
    if ending == ".jsonl":
        file.write_text(lines)
    elif ending == ".jsonl.gz":
        file.write_bytes(gzip.compress(lines.encode()))
    elif ending == ".json":
        file.write_text(json.dumps(rows))
    else:
        import pandas

        frame = pandas.DataFrame(rows)
        frame.to_csv(file, index=False) if ending == ".csv" else frame.to_parquet(file)
    assert list(documents(Source(path=str(file)), "x")) == TEXTS


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert list(documents(Source(path=str(tmp_path / "a.txt")), "x")) == ["one\n\ntwo\n"]


def test_python_itself_is_a_source() -> None:
    first = [text for text, _ in zip(documents(Source(path="builtin:python"), "x"), range(40), strict=False)]
    assert len(first) == 40
    assert all(text.strip() for text in first)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "nowhere.jsonl"}, "x: there is no file nowhere.jsonl"),
        ({"path": "./nowhere"}, "there is no file"),
        ({"path": "builtin:pyton"}, "did you mean `builtin:python`"),
        ({"path": "nobody/nothing"}, "cannot be read|cannot be fetched"),
    ],
)
def test_sources_that_are_not_there(source, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        check_source(Source(**source), "x")


def test_a_missing_column_is_reported_with_those_present(corpus: Path) -> None:
    with pytest.raises(
        DataError, match=r"x.column: .* no column 'txt' \(did you mean `text`\?\); it has: text, source"
    ):
        check_source(Source(path=str(corpus), column="txt"), "x")


def test_a_column_of_numbers_and_a_file_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(DataError, match="holds int, not text"):
        check_source(Source(path=str(tmp_path / "n.jsonl")), "x")
    (tmp_path / "e.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(DataError, match="holds no text"):
        check_source(Source(path=str(tmp_path / "e.jsonl")), "x")
    (tmp_path / "b.jsonl").write_text("{{{\n")
    with pytest.raises(DataError, match="cannot be read"):
        check_source(Source(path=str(tmp_path / "b.jsonl")), "x")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(DataError, match="unknown file extension"):
        check_source(Source(path=str(tmp_path / "a.doc")), "x")


def test_fingerprints_follow_content_and_reading_but_not_place(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    copy = folder / corpus.name
    copy.write_bytes(corpus.read_bytes())
    here, there = Source(path=str(corpus)), Source(path=str(copy))
    assert source_fingerprint(here, "x") == source_fingerprint(there, "x")
    assert sources_fingerprint((here,), "x") == sources_fingerprint((there,), "x")
    other = Source(path=str(corpus), column="source")
    assert sources_fingerprint((here,), "x") != sources_fingerprint((other,), "x")
    copy.write_text(copy.read_text() + '{"text": "more"}\n')
    assert source_fingerprint(here, "x") != source_fingerprint(there, "x")


def test_weights_are_for_all_or_none() -> None:
    with pytest.raises(ValueError, match="either every source has a weight"):
        DataConfig(corpus=[{"path": "a", "weight": 1}, {"path": "b"}])
