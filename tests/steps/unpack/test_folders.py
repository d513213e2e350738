"""Every family there and back again: the folder of a file has the weights, the logits and the tokens of the first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from prunus.steps.unpack import proof
from prunus.steps.unpack.config import UnpackConfig
from prunus.steps.unpack.step import read_source
from tests.families import SPECIAL, make_teacher
from tests.gguf.test_tensors import LOADABLE, ROPES, TYPES, VARIANTS, changed, longrope
from tests.steps.unpack.files import file_of, folder_of
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

WINDOWED = {"mistral": 8, "qwen2": 6, "qwen2_moe": 6, "cwm": 6}  # llama.cpp knows no window: files end there


@pytest.fixture
def special(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, options in LOADABLE.items():
        monkeypatch.setitem(SPECIAL, kind, {**SPECIAL[kind], **options})


def assert_same(first: Path, second: Path, length: int = 48) -> None:
    """Weights and logits are the same, by transformers."""
    one, other = ModelFolder(first), ModelFolder(second)
    scaled = one.config.get("query_pre_attn_scalar") != other.config.get("query_pre_attn_scalar")
    ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert set(theirs) <= set(ours)  # a head that is the embedding once more is tied
    for name, values in theirs.items():
        if scaled and "self_attn.q_proj" in name:
            continue  # the scale of scores is in the queries: the logits tell
        if one.family.gain_offset and values.ndim == 1:  # 1 was added and taken away in float32
            np.testing.assert_allclose(values, ours[name], rtol=0, atol=1.2e-7)
        else:
            np.testing.assert_array_equal(values, ours[name], err_msg=name)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, one.shape.vocab_size, (2, length)))
    with torch.no_grad():
        logits = [load_model(f.path, torch.device("cpu"), torch.float32)(ids).logits for f in (one, other)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=2e-5 if one.family.gain_offset else 1e-6)


@pytest.mark.parametrize("model_type", TYPES)
def test_every_family(special, tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    folder = folder_of(file_of(teacher, tmp_path / "m.gguf"), tmp_path / "out")
    assert_same(teacher, folder, WINDOWED.get(model_type, 48))
    assert ModelFolder(folder).context == WINDOWED.get(model_type, 64)


@pytest.mark.parametrize(("model_type", "options"), VARIANTS)
def test_variants_of_families(special, tmp_path: Path, monkeypatch, model_type: str, options: dict[str, Any]) -> None:
    monkeypatch.setitem(SPECIAL, model_type, {**SPECIAL[model_type], **options})
    teacher = make_teacher(tmp_path / "teacher", model_type)
    assert_same(
        teacher, folder_of(file_of(teacher, tmp_path / "m.gguf"), tmp_path / "out"), WINDOWED.get(model_type, 48)
    )


@pytest.mark.parametrize("kind", ROPES)
def test_positions_that_are_scaled(tmp_path: Path, kind: str) -> None:
    model = changed(make_model(tmp_path / "model", head_dim=8), rope_parameters=ROPES[kind])
    assert_same(model, folder_of(file_of(model, tmp_path / "m.gguf"), tmp_path / "out"))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5, "factor": 32.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        {"rope_theta": 1e4, "factor": 4.0, "high_freq_factor": 7.0, "original_max_position_embeddings": 3000},
    ],
)  # fmt: skip
def test_factors_of_llama3_are_recovered(tmp_path: Path, rope: dict) -> None:
    model = make_model(tmp_path / "model", head_dim=64, hidden_size=128, num_attention_heads=2, num_key_value_heads=2)
    changed(model, rope_parameters={**rope, "low_freq_factor": 1.0, "rope_type": "llama3"})
    folder = folder_of(file_of(model, tmp_path / "m.gguf"), tmp_path / "out")
    found = ModelFolder(folder).config["rope_parameters"]
    assert {key: pytest.approx(found[key], rel=1e-3) for key in rope} == rope
    assert_same(model, folder)


@pytest.mark.parametrize(("model_type", "changes"), [("phi3", {}), ("llama", {"factor": 8.0}), ("granite", {})])
def test_longrope(tmp_path: Path, model_type: str, changes: dict) -> None:
    teacher = longrope(tmp_path / "teacher", model_type, **changes)
    folder = folder_of(file_of(teacher, tmp_path / "m.gguf"), tmp_path / "out")
    assert_same(teacher, folder, 48)
    assert_same(teacher, folder, 300)  # beyond its first context


@pytest.mark.parametrize("format_name", ["gguf-bf16", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-q6_k"])
def test_numbers_of_every_format(tmp_path: Path, format_name: str) -> None:
    pytest.importorskip("xllamacpp", reason="K-quants need llama.cpp's quantiser")
    from gguf import GGMLQuantizationType, quants
    from prunus.llamacpp.reading import read_gguf

    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 32, "num_hidden_layers": 2}
    model = make_model(tmp_path / "model", dtype=torch.bfloat16, **sizes)
    file = file_of(model, tmp_path / "m.gguf", format_name)
    folder = ModelFolder(folder_of(file, tmp_path / "out"))
    assert folder.dtype == ("F16" if format_name == "gguf-f16" else "BF16")
    source = read_gguf(file).tensors["blk.1.ffn_down.weight"]
    numbers = quants.dequantize(np.array(source.stored()), GGMLQuantizationType(source.kind)).reshape(source.shape)
    wanted = torch.from_numpy(np.array(numbers, dtype=np.float32)).to(getattr(torch, folder.config["dtype"]))
    from safetensors.torch import load_file as load_torch

    tensors = load_torch(folder.path / "model.safetensors")
    assert torch.equal(tensors["model.layers.1.mlp.down_proj.weight"], wanted)
    if format_name == "gguf-bf16":
        for name, values in load_torch(model / "model.safetensors").items():
            assert torch.equal(tensors[name], values), name


@pytest.mark.parametrize("model_type", ["gemma3_text", "llama", "gpt2"])
def test_the_proof(special, tmp_path: Path, model_type: str) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    teacher = make_teacher(tmp_path / "teacher", model_type)
    file = file_of(teacher, tmp_path / "m.gguf", "gguf-q8_0")
    folder = ModelFolder(folder_of(file, tmp_path / "out"))
    read = read_source(file, UnpackConfig()).tokenizer
    found = proof.prove_folder(file, folder, read, Console(quiet=True))
    assert found["max_logit_difference"] <= 1e-5
    assert not list(tmp_path.glob(".proof*"))
    epsilon = "layer_norm_epsilon" if model_type == "gpt2" else "rms_norm_eps"
    changed(folder.path, **{epsilon: 1e-2})
    with pytest.raises(proof.ExportError, match=r"in float32, the folder's logits .* differ from the file's"):
        proof.prove_folder(file, ModelFolder(folder.path), read, Console(quiet=True))


def test_tokens_and_ends_of_a_tiny_model(teacher: Path, tmp_path: Path) -> None:
    folder = folder_of(file_of(teacher, tmp_path / "m.gguf"), tmp_path / "out")
    first, second = load_tokenizer(teacher), load_tokenizer(folder)
    for text in ("once upon a time", "Grüße  aus\n\nKöln 123", "<s>a</s>"):
        assert first(text)["input_ids"] == second(text)["input_ids"]
    assert (first.bos_token, first.eos_token) == (second.bos_token, second.eos_token)
