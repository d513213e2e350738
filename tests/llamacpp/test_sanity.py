"""A look at a GGUF file: a sound one goes without a word, and what is wrong with others is told in plain words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.cli.main import main
from prunus.errors import ModelError
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.running import Running
from prunus.llamacpp.sanity import file_warnings
from prunus.models.folder import ModelFolder
from prunus.models.locate import locate_model
from prunus.models.pretrained import load_tokenizer
from tests.real import DATA
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")


@pytest.fixture(scope="module")
def sapling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt something, though no plain English."""
    return write(locate_model("builtin:sapling", None, "test").folder.path, tmp_path_factory.mktemp("look"), "gguf-f16")


@pytest.fixture(autouse=True)
def text(sapling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that it knows: what it writes itself."""
    folder = locate_model("builtin:sapling", None, "test").folder.path
    tokenizer = load_tokenizer(folder)
    with Running(sapling, 32) as running:
        monkeypatch.setattr(
            "prunus.llamacpp.sanity.TEXT", tokenizer.decode(running.greedy(tokenizer("the")["input_ids"], 20))
        )


def write(folder: Path, out: Path, kind: str) -> Path:
    model, file = ModelFolder(folder), out / f"{kind}.gguf"
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), kind, file)
    return file


def test_a_sound_file_gets_no_warning(sapling: Path) -> None:
    assert file_warnings(sapling) == []


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is absent")
def test_so_does_a_model_of_plain_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert file_warnings(write(DATA / "stories260K" / "hf", tmp_path, "gguf-f32")) == []


def test_the_effect_of_fewer_bits_is_reported(tmp_path: Path) -> None:
    (line,) = file_warnings(write(locate_model("builtin:sapling", None, "test").folder.path, tmp_path, "gguf-q8_0"))
    assert "its weights are Q8_0, and on a CPU llama.cpp rounds activations to 8 bits" in line


def test_what_is_worse_than_chance_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(make_model(tmp_path / "random"), tmp_path, "gguf-f32")
    assert "predicts plain English no better than chance" in file_warnings(file)[0]
    options = ["--prompt-tokens", "4", "--new-tokens", "1", "--rounds", "1"]
    assert main(["bench", str(file), *options]) == 0
    assert "no better than chance" in " ".join(capsys.readouterr().out.split())


def test_kernels_that_disagree_are_reported(sapling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Running.logits

    def logits(self: Running, ids: Any, last: int = 0, start: int = 0) -> np.ndarray:
        found = usual(self, ids, last, start)
        return found[:, ::-1] if len(ids) == 1 else found

    monkeypatch.setattr(Running, "logits", logits)
    (line,) = file_warnings(sapling)
    assert "a text gives different probabilities at once and token by token" in line


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = write(make_model(tmp_path / "model", num_hidden_layers=1), tmp_path, "gguf-f32")
    raw = bytearray(file.read_bytes())
    raw[-4096:] = np.full(1024, np.nan, dtype=np.float32).tobytes()
    file.write_bytes(raw)
    with pytest.raises(ModelError, match="its logits are not finite"):
        file_warnings(file)


def test_warnings_repeat_what_export_measured(sapling: Path) -> None:
    record = {"gguf-f16": {"file": sapling.name, "nbytes": sapling.stat().st_size, "kl": 0.018, "top1": 0.943}}
    (sapling.parent / "export.json").write_text(json.dumps(record))
    assert (
        "its KL to the model was 0.018 nats per token, and 94.3% of its top-1 predictions" in file_warnings(sapling)[0]
    )
    record["gguf-f16"]["nbytes"] = 5
    (sapling.parent / "export.json").write_text(json.dumps(record))
    assert "export.json in its folder describes another file" in file_warnings(sapling)[0]
    (sapling.parent / "export.json").unlink()
