import json
from pathlib import Path

import pytest
import xxhash

from prunus.errors import ArtifactError
from prunus.graph.artifact import Artifact


def make(path: Path, key: str = "00000001") -> Artifact:
    artifact = Artifact(path, key)
    out = artifact.begin()
    (out / "sub").mkdir(exist_ok=True)
    (out / "sub" / "result.txt").write_text("hello")
    artifact.finish({"kind": "test"})
    return artifact


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path / "a", "00000001")
    assert not artifact.is_done()
    out = artifact.begin()
    assert not artifact.path.exists()
    assert artifact.has_begun()
    (out / "x").write_text("1")
    artifact.finish({})
    assert artifact.is_done()
    assert not artifact.partial.exists()
    assert sorted(p.name for p in artifact.path.iterdir()) == ["artifact.json", "x"]


def test_the_record_names_every_file(tmp_path: Path) -> None:
    make(tmp_path / "a")
    record = json.loads((tmp_path / "a" / "artifact.json").read_text())
    assert record["files"] == {"sub/result.txt": {"bytes": 5, "xxh3": xxhash.xxh3_128(b"hello").hexdigest()}}


def test_unfinished_work_is_taken_up_by_the_same_work_alone(tmp_path: Path) -> None:
    (Artifact(tmp_path / "a", "00000001").begin() / "half").write_text("1")
    assert (Artifact(tmp_path / "a", "00000001").begin() / "half").is_file()
    assert not (Artifact(tmp_path / "a", "00000002").begin() / "half").exists()


def test_what_is_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(ArtifactError, match="holds the result of other settings"):
        Artifact(tmp_path / "a", "00000002").is_done()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="is not a result of Prunus"):
        Artifact(tmp_path / "mine", "00000001").is_done()
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")


def test_damage_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "sub" / "result.txt").write_text("hell")
    with pytest.raises(ArtifactError, match="missing or not 5 bytes"):
        Artifact(tmp_path / "a", "00000001").is_done()
    (tmp_path / "a" / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact(tmp_path / "a", "00000001").is_done()
