"""A model of several parts wherever a model is named."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from prunus.cli.main import main
from prunus.models.folder import ModelFolder
from prunus.pipeline.unpacking import find_model
from tests.nested import make_nested, picture
from tests.pipeline.recipes import tiny_recipe, write
from tests.tiny import make_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/prunus/text"


def test_the_text_model_is_extracted_once(tmp_path: Path, cache: Path) -> None:
    whole = make_nested(tmp_path / "whole", "qwen3_vl")
    planned = find_model(str(whole), None, "teacher.path", weights=False)
    assert not planned.folder.has_weights
    found = find_model(str(whole), None, "teacher.path")
    assert found.folder.config["model_type"] == "qwen3"
    stamp = (found.folder.path / "model.safetensors").stat().st_mtime_ns
    assert find_model(str(whole), None, "teacher.path", weights=False).folder.path == found.folder.path
    assert (found.folder.path / "model.safetensors").stat().st_mtime_ns == stamp
    assert found.fingerprint() == planned.fingerprint()
    assert found.folder.shape == planned.folder.shape
    assert found.folder.path.parent == cache


def test_a_text_model_is_itself(tmp_path: Path, cache: Path) -> None:
    folder = make_model(tmp_path / "model")
    assert find_model(str(folder), None, "teacher.path").folder.path == folder
    assert not cache.exists()


@pytest.mark.slow
def test_a_run_from_a_model_of_several_parts(corpus: Path, held_out: Path, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "gemma3")
    students = {"w": {"prune": {"hidden_size": 24, "intermediate_size": 40}}}
    recipe = tiny_recipe(whole, corpus, held_out, correct={}, students=students)
    assert main(["run", str(write(tmp_path / "recipe.yaml", recipe)), "--out", str(tmp_path / "run")]) == 0
    (student,) = (tmp_path / "run/w").glob("distill-*/config.json")
    assert ModelFolder(student.parent).shape.hidden_size == 24
    assert ModelFolder(student.parent).config["model_type"] == "gemma3_text"
    out = tmp_path / "out"
    assert main(["insert", str(student.parent), "--into", str(whole), "--out", str(out)]) == 0
    record = json.loads((out / "artifact.json").read_text())
    assert 0.9 < record["metrics"]["embedding_cosine"] <= 1  # the teacher was corrected, and the student distilled
    model, info = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        assert model.eval()(**picture("gemma3")).logits.isfinite().all()
