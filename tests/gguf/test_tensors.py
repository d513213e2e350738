"""Every family as a float32 GGUF in a real llama.cpp: the same logits as transformers, to rounding."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from prunus.errors import ExportError, ModelError, RecipeError
from prunus.gguf import check, layout, positions, writer
from prunus.gguf.check import Reference, prove
from prunus.gguf.metadata import check_model, checked_context, rounds_activation
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.running import Running
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from prunus.steps.export.step import text_beyond
from tests.families import SPECIAL, make_teacher
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

TYPES = [name for name, family in FAMILIES.items() if family.gguf is not None]
LOADABLE: dict[str, dict[str, Any]] = {  # what llama.cpp has of each, where the tiny teachers have more
    "ernie4_5": {"use_bias": False},
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 4},
    "falcon": {"bias": False},
    "gemma": {"attention_bias": False},
    "hunyuan_v1_dense": {"attention_bias": False},
    "qwen3": {"attention_bias": False},
    "seed_oss": {"attention_out_bias": False, "mlp_bias": False},
    "qwen3_moe": {"norm_topk_prob": True},
    "smollm3": {"no_rope_layer_interval": 4},
    "qwen3_5_text": {"linear_value_head_dim": 8},
}


@pytest.fixture
def special(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, options in LOADABLE.items():
        monkeypatch.setitem(SPECIAL, kind, {**SPECIAL[kind], **options})


def reference_of(folder: Path, length: int = 48) -> Reference:
    model = ModelFolder(folder)
    limit = checked_context(model.config, model.shape)
    windows = list(np.random.default_rng(5).integers(3, model.shape.vocab_size, (2, min(length, limit))))
    loaded = load_model(folder, torch.device("cpu"), torch.float32)
    beyond = text_beyond(model, 5)
    return Reference(loaded, load_tokenizer(folder), windows, is_text=False, limit=limit, beyond=beyond)


def proof(folder: Path, out: Path, length: int = 48) -> dict[str, float]:
    """Write a float32 file and hold it against the model."""
    model = ModelFolder(folder)
    file = out / "model.gguf"
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), "gguf-f32", file)
    return prove(file, reference_of(folder, length), 8, rounds_activation(model.family))


def changed(folder: Path, **values: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


@pytest.mark.parametrize("model_type", TYPES)
def test_a_float32_file_computes_what_the_model_computes(special, tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    check_model(ModelFolder(teacher).config, ModelFolder(teacher).shape, "export")
    found = proof(teacher, tmp_path)
    # less the opening that is gone on from
    windows = {"mistral": 8 - 2, "qwen2": 6 - 1, "qwen2_moe": 6 - 1, "cwm": 6 - 1}
    assert found["greedy_tokens_alike"] == windows.get(model_type, 8)
    assert found["kl"] < 1e-5


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"tie_word_embeddings": True}),
    ("granite", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    ("qwen2", {"tie_word_embeddings": False}),
    ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    ("smollm3", {"head_dim": 16, "tie_word_embeddings": False}),
    ("gemma2", {"head_dim": 16}),
    ("gemma3_text", {"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
    ("olmo2", {"tie_word_embeddings": True}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    ("olmo3", {"sliding_window_pattern": 2, "rope_parameters": {
        "full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 500.0,
                           "original_max_position_embeddings": 16},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}}),
    ("seed_oss", {"head_dim": 16, "attention_bias": False}),
    ("exaone4", {"tie_word_embeddings": True, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    ("ernie4_5", {"head_dim": 16, "tie_word_embeddings": False}),
    ("hunyuan_v1_dense", {"head_dim": 16, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 500.0, "alpha": 50.0, "factor": 1.0}}),
    ("cohere2", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
    ("falcon", {"bias": False, "tie_word_embeddings": False}),
    ("gpt_neox", {"use_parallel_residual": False, "tie_word_embeddings": True}),
    ("mixtral", {"num_local_experts": 8, "head_dim": 16}),
    ("lfm2", {"full_attn_idxs": [0], "tie_word_embeddings": False}),
    ("qwen3_5_text", {
        "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 4, "tie_word_embeddings": True}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "options"), VARIANTS)
def test_variants_of_families(special, tmp_path: Path, monkeypatch, model_type: str, options: dict[str, Any]) -> None:
    monkeypatch.setitem(SPECIAL, model_type, {**SPECIAL[model_type], **options})
    teacher = make_teacher(tmp_path / "teacher", model_type)
    check_model(ModelFolder(teacher).config, ModelFolder(teacher).shape, "export")
    proof(teacher, tmp_path)


ROPES: dict[str, dict[str, Any]] = {
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn with its own": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 1.7,
    },
}


@pytest.mark.parametrize("kind", ROPES)
def test_positions_that_are_scaled(tmp_path: Path, kind: str) -> None:
    proof(changed(make_model(tmp_path / "model", head_dim=8), rope_parameters=ROPES[kind]), tmp_path)


@pytest.mark.parametrize("kind", ROPES)
def test_missing_rope_scaling_fails_the_proof(tmp_path: Path, monkeypatch, kind: str) -> None:
    model = changed(make_model(tmp_path / "model", head_dim=8), rope_parameters=ROPES[kind])
    monkeypatch.setattr("prunus.gguf.tensors.frequency_factors", lambda *_: {})
    told = writer.model_keys
    monkeypatch.setattr(
        writer, "model_keys", lambda *args: {k: v for k, v in told(*args).items() if not k.startswith("rope.scaling")}
    )
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        proof(model, tmp_path)


def longrope(folder: Path, model_type: str, **changes: Any) -> Path:
    """A teacher whose heads of 8 were trained to 256 tokens and stretched to 512."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 256,
    }
    own = {
        "phi3": {"original_max_position_embeddings": 256},
        "mixtral": {"num_experts_per_tok": 6},  # all of them, so that no rounding chooses between two
    }.get(model_type, {})
    return changed(
        make_teacher(folder, model_type), max_position_embeddings=512, rope_parameters={**rope, **changes}, **own
    )


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("phi3", {}), ("llama", {}), ("llama", {"factor": 8.0}), ("granite", {"attention_factor": 1.3}), ("mixtral", {})],
)
def test_longrope_on_both_sides_of_its_first_context(tmp_path: Path, model_type: str, changes: dict) -> None:
    teacher = longrope(tmp_path / "teacher", model_type, **changes)
    found = proof(teacher, tmp_path, length=256)
    folder = ModelFolder(teacher)
    assert found["difference_beyond"] < 1e-3
    assert checked_context(folder.config, folder.shape) == 256
    text = text_beyond(folder, 5)
    assert text is not None
    assert len(text) == 256 + 32
    short, reference = text[-256:], reference_of(teacher)
    with Running(tmp_path / "model.gguf", 512) as wide, Running(tmp_path / "model.gguf", 256) as narrow:
        wanted = reference.logits(short)
        assert np.abs(narrow.logits(short) - wanted).max() < 1e-3
        assert np.abs(wide.logits(short) - wanted).max() > 1e-2  # what the warning is about


@pytest.mark.parametrize("lost", ["long", "short"])
def test_missing_longrope_factors_fail_the_proof(tmp_path: Path, monkeypatch, lost: str) -> None:
    told = positions.frequency_factors
    name = f"rope_factors_{lost}.weight"
    monkeypatch.setattr(
        "prunus.gguf.tensors.frequency_factors",
        lambda *args: {key: np.ones_like(old) if key == name else old for key, old in told(*args).items()},
    )
    message = "after 288 tokens differ" if lost == "long" else "logits differ"
    with pytest.raises(ExportError, match=message):
        proof(longrope(tmp_path / "teacher", "phi3"), tmp_path)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("qwen3", {}, "llama.cpp reads their factors only for .*Granite, .*Llama, .*Phi-3, not for Qwen3"),
        ("llama", {"original_max_position_embeddings": 100}, "would use long_factor too early"),
        ("llama", {"short_factor": [1.0]}, "short_factor has 1 numbers, expected 4"),
    ],
)
def test_longrope_that_llama_cpp_has_not(tmp_path: Path, model_type: str, changes: dict, message: str) -> None:
    folder = ModelFolder(longrope(tmp_path / "teacher", model_type, **changes))
    with pytest.raises(RecipeError, match=message):
        check_model({**folder.config, "attention_bias": False}, folder.shape, "export.formats")


@pytest.mark.parametrize("fault", ["rows", "heads", "theta", "epsilon", "window"])
def test_a_wrong_file_is_caught(special, tmp_path: Path, monkeypatch, fault: str) -> None:
    model = make_teacher(tmp_path / "teacher", "gemma2" if fault == "window" else "llama")
    changed(model, rms_norm_eps=1e-5)
    told = writer.model_keys
    wrong = {
        "theta": {"rope.freq_base": 9000.0},
        "epsilon": {"attention.layer_norm_rms_epsilon": 1e-2},
        "window": {"attention.sliding_window_pattern": [False, True] * 2},
    }
    if fault == "rows":
        monkeypatch.setattr("prunus.gguf.tensors.row_order", lambda *_: None)
    if fault == "heads":
        order = layout.row_order

        def swapped(weight: Any, name: str, *rest: Any) -> Any:
            rows = order(weight, name, *rest)
            return np.roll(rows, 8) if "attn_q." in name else rows

        monkeypatch.setattr("prunus.gguf.tensors.row_order", swapped)
    monkeypatch.setattr(writer, "model_keys", lambda *args: told(*args) | wrong.get(fault, {}))
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        proof(model, tmp_path)


GELU_FAULTS = [
    ("gemma2", "rope.freq_base", 1.01),
    ("gemma3_text", "rope.freq_base_swa", 1.02),
    ("gemma3_text", "attention.layer_norm_rms_epsilon", 1e10),  # tests have 1e-12
    ("gpt_neox", "attention.layer_norm_epsilon", 1e10),
    ("gpt2", "attention.layer_norm_epsilon", 1e10),
]


@pytest.mark.parametrize(("model_type", "key", "factor"), GELU_FAULTS)
def test_the_tolerance_of_gelu_hides_no_fault(
    special, tmp_path: Path, monkeypatch, model_type: str, key: str, factor: float
) -> None:
    model = make_teacher(tmp_path / "teacher", model_type)
    told = writer.model_keys
    monkeypatch.setattr(writer, "model_keys", lambda *args: {**(keys := told(*args)), key: keys[key] * factor})
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        proof(model, tmp_path)


def test_a_model_that_enlarges_a_coarse_gelu_passes(special, tmp_path: Path, monkeypatch) -> None:
    """As Gemma 3 270M does: more than 1 % of the logits' spread, and no fault of the file."""
    model = make_teacher(tmp_path / "teacher", "gemma3_text")
    weights = load_file(model / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith(("gate_proj.weight", "up_proj.weight", "down_proj.weight", "q_norm.weight", "k_norm.weight")):
            weights[name] = tensor * 4
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    found = proof(model, tmp_path)
    monkeypatch.setattr(check, "TABLE", (0.01, 0.01))
    assert found["max_logit_difference"] > check.TOLERANCE * found["logit_spread"]
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        proof(model, tmp_path)


def test_a_head_dimension_that_hidden_size_does_not_give(tmp_path: Path) -> None:
    proof(make_model(tmp_path / "model", head_dim=6, num_attention_heads=4, num_key_value_heads=2), tmp_path)


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_an_attention_scale_that_head_dim_does_not_give(tmp_path: Path, kind: str) -> None:
    model = changed(make_teacher(tmp_path / "model", kind), query_pre_attn_scalar=19)
    proof(model, tmp_path)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("llama", {"hidden_act": "relu2"}, "hidden_act is 'relu2'; llama.cpp's llama uses silu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        ("qwen3", {}, "attention_bias is true"),
        ("qwen3_moe", {}, "norm_topk_prob"),
        ("phi3", {"head_dim": 4}, "hidden_size is 32, but llama.cpp expects num_attention_heads x head_dim = 16"),
        ("llama", {"rope_parameters": {**ROPES["yarn"], "beta_slow": 2.0}}, "yarn with beta_fast or beta_slow"),
        ("smollm3", {"attention_bias": True}, "attention_bias is true"),
        ("gpt_neox", {"attention_bias": False}, "attention_bias is False; llama.cpp's gptneox supports only True"),
        ("qwen2", {"head_dim": 4}, "hidden_size is 32, but llama.cpp expects num_attention_heads x head_dim = 16"),
        ("gemma2", {"final_logit_softcapping": None}, "without a soft cap"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ("exaone4", {}, "sliding_window is 6 with 4 layers"),
        (
            "exaone4",
            {"sliding_window": None, "num_hidden_layers": 64, "layer_types": ["full_attention"] * 64},
            "64 layers",
        ),
        ("olmo3", {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}, "one theta"),
        ("ministral3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "needs"),
        ("seed_oss", {"mlp_bias": False}, "attention_out_bias is true"),
        ("starcoder2", {"use_bias": False}, "use_bias is False; llama.cpp's starcoder2 supports only True"),
        ("gemma", {"attention_bias": False, "tie_word_embeddings": False}, "llama.cpp's gemma ties them"),
        ("gemma", {"attention_bias": False, "hidden_act": "silu"}, "hidden_act is 'silu'"),
        ("helium", {}, "cannot write helium for llama.cpp"),
        ("gemma2", {"layer_types": ["full_attention"] * 4}, "no layer slides"),
        ("smollm3", {}, r"no_rope_layers is \[1, 0, 1, 0\].*drop layers in blocks of 4"),
    ],
)
def test_what_llama_cpp_has_not_is_refused(tmp_path: Path, model_type: str, changes: dict, message: str) -> None:
    folder = ModelFolder(changed(make_teacher(tmp_path / "model", model_type), **changes))
    with pytest.raises(RecipeError, match=message):
        check_model(folder.config, folder.shape, "export.formats")


def test_a_family_that_llama_cpp_has_not(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    unheld = replace(folder.family, model_type="mamba", gguf=None)
    with pytest.raises(RecipeError, match=r"export.formats: Prunus cannot write mamba for llama.cpp.*What works"):
        check_model(folder.config, replace(folder.shape, family=unheld), "export.formats")


def test_a_value_that_float16_cannot_hold(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = 70000.0
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    folder = ModelFolder(model)
    with pytest.raises(ModelError, match=r"blk.1.ffn_up.weight.*use gguf-bf16"):
        write_gguf(folder, read_vocabulary(model, 300), "gguf-f16", tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))  # neither whole nor half


def test_a_file_that_crashes_llama_cpp_is_reported(tmp_path: Path, monkeypatch) -> None:
    model = make_teacher(tmp_path / "model", "gemma2")
    told = writer.model_keys
    odd = {"attention.sliding_window_pattern": [False] * 4}  # it asserts that some layer slides
    monkeypatch.setattr(writer, "model_keys", lambda *args: told(*args) | odd)
    with pytest.raises(ExportError, match="its process ended unexpectedly"):
        proof(model, tmp_path)


def test_a_file_that_llama_cpp_does_not_load_is_refused(tmp_path: Path, teacher: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="llama.cpp does not load it"):
        check.measure({"gguf-q8_0": tmp_path / "model.gguf"}, reference_of(teacher), lambda _: None)
