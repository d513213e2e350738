"""Damage to finished results: noticed before they are used, once read and not again, and named by `prunus verify`."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ArtifactError
from prunus.graph import integrity
from prunus.graph.artifact import Artifact
from prunus.graph.integrity import check_artifact
from tests.fuzz import fuzz

QUIET = Console(quiet=True)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    artifact = Artifact(tmp_path / "run" / "made-0000000a", "0000000a")
    out = artifact.begin()
    (out / "weights").write_bytes(bytes(range(256)) * 40)
    (out / "answers").mkdir()
    (out / "answers" / "a.jsonl").write_text('{"said": "plum"}\n')
    artifact.finish({"kind": "distill", "metrics": {"loss": 1.25}})
    return artifact.path


def flip(file: Path, bit: int) -> None:
    """Flip one bit, and give the file the times that it had."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", ["weights", "answers/a.jsonl"])
@pytest.mark.parametrize("bit", [0, 70])
def test_a_flipped_bit_is_noticed_before_use(made: Path, name: str, bit: int) -> None:
    check_artifact(made, QUIET)
    flip(made / name, bit)
    with pytest.raises(ArtifactError, match=rf"{name}: damaged: its checksum is .*; remove {made}"):
        check_artifact(made, QUIET)


def test_a_figure_that_was_changed_in_the_record_is_noticed(made: Path) -> None:
    record = made / "artifact.json"
    record.write_text(record.read_text().replace("1.25", "1.35"))
    with pytest.raises(ArtifactError, match="its own checksum differs"):
        check_artifact(made, QUIET)


def test_unchanged_files_are_read_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    checksum = integrity.checksum
    monkeypatch.setattr(integrity, "checksum", lambda file: read.append(file.name) or checksum(file))
    time.sleep(0.11)  # what changed just before may change again within one tick of the clock
    check_artifact(made, QUIET)
    read.clear()
    check_artifact(made, QUIET)
    assert read == []
    (made / "weights").touch()
    check_artifact(made, QUIET)
    assert read == ["weights"]


def test_nothing_is_remembered_where_nothing_can_be_written(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(integrity, "replace_json", refuse)
    check_artifact(made, QUIET)
    flip(made / "weights", 9)
    with pytest.raises(ArtifactError, match="damaged"):
        check_artifact(made, QUIET)


def test_verify_names_every_file_that_is_not_as_recorded(made: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(made)]) == 0
    assert main(["verify", str(made.parent)]) == 0
    assert "1 results, 2 files, 10.3 kB: all as recorded" in capsys.readouterr().out
    (made / "README.md").write_text("the card of the report")
    assert main(["verify", str(made)]) == 0
    flip(made / "weights", 100)
    (made / "answers" / "a.jsonl").unlink()
    (made / "answers" / "b.jsonl").write_text("not ours")
    capsys.readouterr()
    assert main(["verify", str(made.parent)]) == 2
    text = capsys.readouterr().err
    for message in ("3 files", "weights: damaged", "a.jsonl: missing", "b.jsonl: unexpected"):
        assert message in text
    assert main(["verify", str(made.parent / "nowhere")]) == 2
    assert "no finished result" in capsys.readouterr().err


GOOD = {"key": "0000000a", "files": {"x": {"bytes": 1, "xxh3": "0" * 32}}, "metrics": {}}
BROKEN = {
    "a list": "[]",
    "empty": "",
    "truncated": '{"key": "0000000a", "fil',
    "nothing in it": "{}",
    "no files": '{"key": "0000000a"}',
    "files a list": '{"key": "0000000a", "files": []}',
    "a file of no size": '{"key": "0000000a", "files": {"x": {}}}',
    "a size that is text": json.dumps({**GOOD, "files": {"x": {"bytes": "1", "xxh3": "0" * 32}}}),
    "metrics a list": json.dumps({**GOOD, "metrics": []}),
    "a file outside": json.dumps({**GOOD, "files": {"../x": GOOD["files"]["x"]}}),
    "a key that is a number": json.dumps({**GOOD, "key": 1}),
    "nested": "[" * 100_000,
    "not UTF-8": b"\xff\xfe{}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_named_with_what_to_remove(tmp_path: Path, text: str | bytes) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "artifact.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for use in (Artifact(folder, "0000000a").is_done, lambda: check_artifact(folder, QUIET)):
        with pytest.raises(ArtifactError, match=rf"artifact.json.*remove {folder} to make it again"):
            use()
    assert main(["verify", str(folder)]) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@fuzz(60)
@given(changes=st.dictionaries(st.sampled_from([*GOOD, "inputs", "kind", "seal"]), json_values, max_size=3))
def test_a_record_of_any_shape_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, changes: dict) -> None:
    folder = tmp_path_factory.mktemp("made")
    (folder / "artifact.json").write_text(json.dumps({**GOOD, **changes}))
    artifact = Artifact(folder, "0000000a")
    for use in (artifact.is_done, artifact.lacks_grades, artifact.recover, lambda: check_artifact(folder, QUIET)):
        try:
            use()
        except ArtifactError as error:
            assert str(folder) in str(error)


@pytest.mark.parametrize("words", [["chat"], ["bench", "--engine", "transformers"], ["publish", "--to", "me/it"]])
def test_what_is_run_or_sent_is_compared_first(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str]
) -> None:
    out = tmp_path / "student"
    cut = ["prune", teacher, "--importance.channels.criterion", "random", "--hidden-size", 16, "--out", out]
    assert main([str(word) for word in cut]) == 0
    flip(out / "model.safetensors", 9001)
    command, *options = words
    assert main([command, str(out), *options]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_a_file_is_compared_with_the_result_that_it_lies_in(made: Path, capsys: pytest.CaptureFixture) -> None:
    name = sorted(path.name for path in made.iterdir() if path.is_file() and path.name != "artifact.json")[0]
    flip(made / name, 3)
    assert main(["serve", str(made / name)]) == 2
    assert name in capsys.readouterr().err
