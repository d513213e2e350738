"""Figures of a GGUF file, compared with those of the `gguf` package's reader."""

import json
from collections import Counter
from pathlib import Path

import pytest

from prunus.cli.main import main
from tests.steps.unpack.files import file_of

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.fixture(scope="module")
def file(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(teacher, tmp_path_factory.mktemp("gguf") / "tiny.gguf", "gguf-q8_0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_bytes_of_a_gguf_file_are_those_that_the_gguf_package_counts(file: Path, capsys) -> None:
    assert main(["inspect", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    tensors = gguf.GGUFReader(file).tensors
    sizes, values, counts = Counter(), Counter(), Counter()
    for tensor in tensors:
        kind = tensor.tensor_type.name
        sizes[kind] += int(tensor.n_bytes)
        values[kind] += int(tensor.n_elements)
        counts[kind] += 1
    assert set(counts) == {"Q8_0", "F16", "F32"}
    for kind, row in facts["formats"].items():
        if kind != "all":
            assert (row["tensors"], row["values"], row["bytes"]) == (counts[kind], values[kind], sizes[kind])
    assert facts["formats"]["Q8_0"]["bits_per_weight"] == 8.5
    assert facts["formats"]["all"]["tensors"] == len(tensors)
    assert facts["bytes"] == facts["formats"]["all"]["bytes"] == sizes.total()
    assert facts["file_bytes"] == file.stat().st_size > facts["bytes"]


def test_formats_are_a_table_with_the_largest_first(file: Path, capsys) -> None:
    assert main(["inspect", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("Tensors by format")
    assert [line.split()[0] for line in lines[begin + 1 :]] == ["format", "Q8_0", "F16", "F32", "all"]


def test_a_folder_has_bytes_and_no_formats(teacher: Path, capsys) -> None:
    assert main(["inspect", str(teacher), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == 4 * facts["parameters"]
    assert "formats" not in facts
