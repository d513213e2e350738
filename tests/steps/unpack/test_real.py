"""Real GGUF files, beside the folders that transformers' own reader makes of them: `gguf/NAME.gguf` and `NAME`."""

import os
from pathlib import Path

import pytest

from prunus.models.checkpoint import read_bytes
from prunus.models.folder import ModelFolder
from tests.steps.unpack.files import folder_of

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

MODELS = Path(os.environ.get("PRUNUS_REAL_MODELS", "/nonexistent"))
FILES = sorted((MODELS / "gguf").glob("*.gguf"))


@pytest.mark.real_model
@pytest.mark.skipif(not FILES, reason="PRUNUS_REAL_MODELS has no gguf/*.gguf")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_weights_equal_those_of_transformers(file: Path, tmp_path: Path) -> None:
    ours, beside = ModelFolder(folder_of(file, tmp_path / "out")), MODELS / file.stem
    ours.check()
    if not beside.is_dir():
        pytest.skip(f"there is no folder {beside.name}")
    theirs = ModelFolder(beside).weights
    assert set(ours.weights) == set(theirs)
    for name, info in ours.weights.items():
        assert read_bytes(info) == read_bytes(theirs[name]), name
