"""ONNX and torchao, run for real where they are installed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunus.console import Console
from prunus.errors import ExportError, RecipeError
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.export import torchao
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.step import Inputs, run
from prunus.steps.export.targets import TARGETS
from tests.tiny import load, make_model

WIDE = {"head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 128}


def export(model: Path, out: Path, *formats: str) -> dict[str, Any]:
    out.mkdir()
    config = ExportConfig(formats=formats, check_tokens=64, check_length=32)
    run(config, Inputs(model), out, Runtime(), Console(quiet=True))
    return json.loads((out / "export.json").read_text())


def test_onnx_computes_what_the_model_computes(tmp_path: Path) -> None:
    for name in ("onnx", "onnx_ir", "onnxruntime_genai"):
        pytest.importorskip(name, reason="the extra `onnx` is not installed")
    context = {"max_position_embeddings": 32}  # as long as the stretches that it is checked on
    model = make_model(tmp_path / "model", tie_word_embeddings=False, **WIDE, **context)
    found = export(model, tmp_path / "out", "onnx-fp32", "onnx-int4")
    assert found["onnx-fp32"]["max_logit_difference"] < 1e-3
    assert found["onnx-fp32"]["kl"] < found["onnx-int4"]["kl"] < 1.0
    assert found["onnx-int4"]["nbytes"] < found["onnx-fp32"]["nbytes"]
    assert (tmp_path / "out" / "onnx-int4" / "genai_config.json").is_file()


def test_int8_weights_are_reopened_bit_for_bit(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("torchao", reason="the extra `torchao` is not installed")
    model = make_model(tmp_path / "model", **WIDE)
    found = export(model, tmp_path / "out", "torchao-int8")["torchao-int8"]
    assert 0 < found["kl"] < 0.05
    assert found["nbytes"] < (model / "model.safetensors").stat().st_size / 2
    assert (
        load(tmp_path / "out" / "torchao-int8")(input_ids=load(model).dummy_inputs["input_ids"]).logits.isfinite().all()
    )
    monkeypatch.setattr(torchao, "LIMIT", 0.0)
    with pytest.raises(ExportError, match="torchao-int8: KL to the model is"):
        export(model, tmp_path / "again", "torchao-int8")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("llama", {}, "head_dim is 4; onnxruntime's attention needs a multiple of 16"),
        ("gpt2", WIDE, "builder does not support gpt2; allowed: gemma2"),
    ],
)
def test_what_onnx_has_not_is_refused(tmp_path: Path, kind: str, changes: dict, message: str) -> None:
    shape = ModelFolder(make_model(tmp_path / "model", **changes)).shape
    with pytest.raises(RecipeError, match=message):
        TARGETS["onnx"].check({}, replace(shape, family=FAMILIES[kind]), "export.formats")
