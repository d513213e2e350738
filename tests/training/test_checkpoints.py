"""Checkpoints: the last whole one is there until the result is recorded, whatever ends the process in between."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError
from transformers import TrainerControl, TrainerState

from prunus.cli.main import main
from prunus.console import Progress
from prunus.errors import ArtifactError
from prunus.graph.artifact import Artifact
from prunus.runtime import Runtime
from prunus.training.loop import ObjectiveTrainer
from prunus.training.record import Recorder, last_checkpoint
from tests.tiny import make_model

FULL = {
    "the system": OSError(28, "No space left on device"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    "torch, later": RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "tokenizers": Exception("No space left on device (os error 28)"),
}
STEPS = 12


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("student") / "model", seed=1, hidden_size=16, num_hidden_layers=2)


def distil(student: Path, teacher: Path, corpus: Path, out: Path, *more: str) -> int:
    words = ["distill", student, "--teacher", teacher, "--corpus", corpus, "--out", out, "--tokens", STEPS * 4 * 16]
    words += ["--sequence-length", 16, "--batch-size", 4, "--warmup-steps", 1]
    words += ["--states.layers", "late", "--states.projection", "learned", *more]
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def expected(student: Path, teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a distillation that nothing disturbed."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert distil(student, teacher, corpus, out) == 0
    assert not (out / "checkpoints").exists()
    return (out / "model.safetensors").read_bytes()


def refuse_training(*_, **__) -> None:
    raise AssertionError("the tokens are trained again")


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_disk_that_is_full_when_the_result_is_saved_loses_no_step(
    student, teacher, corpus, tmp_path, expected, error, monkeypatch, capsys
) -> None:
    out = tmp_path / "out"

    def full(*_) -> None:
        (tmp_path / "out.partial" / "model.safetensors").write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("prunus.steps.distill.step.save_trained", full)
        assert distil(student, teacher, corpus, out) == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message or "bytes free" in message
    assert "Traceback" not in message
    monkeypatch.setattr(ObjectiveTrainer, "training_step", refuse_training)
    assert distil(student, teacher, corpus, out) == 0
    assert (out / "model.safetensors").read_bytes() == expected
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert not list(tmp_path.rglob("checkpoint*"))
    record = json.loads((out / "artifact.json").read_text())
    assert not [name for name in record["files"] if name.startswith("checkpoints")]
    assert record["metrics"]["tokens"] == STEPS * 4 * 16


def test_what_cannot_be_recorded_is_recorded_later(student, teacher, corpus, tmp_path, expected, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    finish = Artifact.finish
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "finish", lambda one, record: (full if one.path.name == "out" else finish)(one, record))
        assert distil(student, teacher, corpus, tmp_path / "out") == 2
    monkeypatch.setattr(ObjectiveTrainer, "training_step", refuse_training)
    assert distil(student, teacher, corpus, tmp_path / "out") == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(place)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_is_full_and_gets_room(student, teacher, corpus, small_disk, expected, capsys) -> None:
    place = small_disk / "run"
    place.mkdir()
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 300_000)
    codes = []
    for size in (300_000, 250_000, 200_000, 150_000, 100_000, 50_000, 0):
        os.truncate(filler, size)
        codes.append(distil(student, teacher, corpus, place / "out", "--runtime.checkpoint-minutes", "0"))
        if codes[-1] == 0:
            break
    text = capsys.readouterr()
    assert codes[0] == 2
    assert codes[-1] == 0
    assert "Traceback" not in text.err
    assert (place / "out" / "model.safetensors").read_bytes() == expected


def written(folder: Path, step: int, owner: str | None) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text(str(step))
    if owner is not None:
        (checkpoint / "complete").write_text(owner)
    return checkpoint


def test_a_half_written_checkpoint_is_not_counted_as_the_newest(tmp_path: Path) -> None:
    """A run was killed while it saved step 20, went on from 10, and saves step 18: a clock or a count would keep 20."""
    folder = tmp_path / "checkpoints"
    written(folder, 10, "me")
    written(folder, 20, None)
    assert last_checkpoint(folder, "me") == str(folder / "checkpoint-10")
    new = written(folder, 18, None)
    os.utime(new, (0, 0))  # a clock that was put back
    recorder = Recorder(tmp_path / "metrics.jsonl", 1, Progress("", 1, ""), Runtime(), "me")
    recorder.on_save(SimpleNamespace(output_dir=folder), TrainerState(global_step=18), TrainerControl())
    assert [path.name for path in folder.iterdir()] == ["checkpoint-18"]
    assert last_checkpoint(folder, "me") == str(new)
    with pytest.raises(ArtifactError, match="other options"):
        last_checkpoint(folder, "somebody else")


def test_the_metrics_of_before_are_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    before = file.read_text()

    def killed(*_) -> None:
        raise KeyboardInterrupt

    recorder = Recorder(file, 1, Progress("", 1, ""), Runtime(), "me")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            recorder.resume(1)
    assert file.read_text() == before
    recorder.resume(1)
    assert file.read_text() == '{"step": 1, "loss": 2.0}\n'
