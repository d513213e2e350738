"""Settings are compared by what they amount to: the reference is what transformers computes with each config."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.steps.merge.compatibility import check_mergeable, different_settings, different_templates, different_tokens
from tests.tiny import load, make_model

GONE = object()
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CHANGES: dict[str, list[dict[str, Any]]] = {
    "llama": [
        {"rope_parameters": GONE, "rope_theta": 1e6},
        {"rope_parameters": GONE, "rope_theta": 10000},
        {"rope_parameters": GONE},
        {"rope_scaling": YARN},
        {"rope_parameters": YARN},
        {"rope_scaling": {"type": "default", "factor": 3.0}},
        {"rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_scaling": None},
        {"rms_norm_eps": GONE},
        {"rms_norm_eps": 1e-2},
        {"head_dim": None},
        {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
        {"hidden_act": "gelu"},
        {"hidden_act": GONE},
        {"max_position_embeddings": 4096},
        {"attention_dropout": 0.5},
        {"pretraining_tp": 2},
        {"initializer_range": 0.5},
        {"use_cache": False, "eos_token_id": [5], "bos_token_id": None},
        {"sliding_window": 4},
        {"unsloth_version": "1", "torch_dtype": "float16"},
        {"dtype": GONE},
    ],
    "qwen2": [
        {"sliding_window": 4},
        {"sliding_window": None, "max_window_layers": 21},
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 4, "layer_types": GONE},
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": GONE},
        {"layer_types": GONE},
    ],
    "mistral": [{"sliding_window": 8}, {"sliding_window": None}, {"sliding_window": GONE}],
    "gemma3_text": [
        {"rope_parameters": GONE},
        {"rope_parameters": GONE, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
        {"rope_parameters": GONE, "rope_theta": 1e6, "rope_local_base_freq": 1e3},
        {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
        {"query_pre_attn_scalar": 4},
        {"sliding_window": 8},
        {"sliding_window_pattern": 2},
        {"sliding_window_pattern": 2, "layer_types": GONE},
    ],
    "gpt_neox": [
        {"rope_parameters": GONE, "rotary_pct": 1.0},
        {"rope_parameters": GONE, "rotary_pct": 0.5},
        {"use_parallel_residual": False},
        {"hidden_dropout": 0.3, "classifier_dropout": 0.4},
    ],
    "smollm3": [{"no_rope_layer_interval": 2}, {"no_rope_layers": [1, 1, 1, 1]}, {"rope_parameters": GONE}],
    "phi3": [{"sliding_window": 8}, {"original_max_position_embeddings": 16}, {"partial_rotary_factor": 1.0}],
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4096},
    "gemma3_text": {"sliding_window": 4096, "pad_token_id": 0},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
    "phi3": {"pad_token_id": 0},
    "smollm3": {"pad_token_id": 0},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, torch.Tensor]]:
    """A tiny model of a type, and its logits; made once."""
    root, made = tmp_path_factory.mktemp("bases"), {}

    def base(model_type: str) -> tuple[Path, torch.Tensor]:
        if model_type not in made:
            changes = {"num_key_value_heads": 8} if model_type in ("gpt_neox",) else {}
            folder = make_model(root / model_type, model_type=model_type, **changes, **BASES.get(model_type, {}))
            made[model_type] = folder, logits(folder)
        return made[model_type]

    return base


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(folder).float()(torch.arange(3, 51)[None]).logits


def changed(folder: Path, out: Path, changes: dict[str, Any]) -> Path:
    shutil.copytree(folder, out)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (out / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not GONE}))
    return out


@pytest.mark.parametrize(
    ("model_type", "number"), [(kind, i) for kind, all_ in CHANGES.items() for i in range(len(all_))]
)
def test_settings_differ_where_logits_do(model_type: str, number: int, bases: Any, tmp_path: Path) -> None:
    base, reference = bases(model_type)
    other = changed(base, tmp_path / "other", CHANGES[model_type][number])
    lines = different_settings(ModelFolder(base), ModelFolder(other))
    same = torch.allclose(logits(other), reference, atol=1e-5)
    assert (lines == []) == same, (CHANGES[model_type][number], lines)


def test_the_context_is_the_firsts_and_is_reported(bases: Any, tmp_path: Path) -> None:
    base, _ = bases("llama")
    longer = ModelFolder(changed(base, tmp_path / "longer", {"max_position_embeddings": 4096}))
    (note,) = check_mergeable([ModelFolder(base), longer], None, "merge")
    assert "max_position_embeddings: 4096 in" in note
    assert "the merged model has 128, like the first" in note
    scaled = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}
    pair = [
        changed(base, tmp_path / "a", scaled),
        changed(base, tmp_path / "b", {**scaled, "max_position_embeddings": 64}),
    ]
    with pytest.raises(ModelError, match="config.json: max_position_embeddings: 64 and 128"):
        check_mergeable([ModelFolder(folder) for folder in pair], None, "merge")


def test_a_tied_and_an_untied_model_are_refused(bases: Any, tmp_path: Path) -> None:
    base, _ = bases("llama")
    untied = changed(base, tmp_path / "untied", {"tie_word_embeddings": False})
    weights = load_file(untied / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, untied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lm_head.weight"):
        check_mergeable([ModelFolder(base), ModelFolder(untied)], None, "merge")


def test_other_spellings_of_one_tokenizer_are_equal(bases: Any, tmp_path: Path) -> None:
    base, _ = bases("llama")
    other = changed(base, tmp_path / "other", {})
    file = other / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    del tokenizer["model"]["type"]
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    tokenizer["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer["pre_tokenizer"]["trim_offsets"] = not tokenizer["pre_tokenizer"]["trim_offsets"]
    file.write_text(json.dumps(tokenizer))
    assert different_tokens(base, other) == []
    tokenizer["pre_tokenizer"]["use_regex"] = False
    file.write_text(json.dumps(tokenizer))
    assert different_tokens(base, other) == ["tokenizer.json: pre_tokenizer differs"]


def test_templates_are_compared_by_name_wherever_they_stand(bases: Any, tmp_path: Path) -> None:
    base, _ = bases("llama")
    ways = {
        "file": {},
        "config": {"chat_template": "a"},
        "named": {"chat_template": [{"name": "tools", "template": "b"}]},
    }
    for name, more in ways.items():
        folder = changed(base, tmp_path / name, {})
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, **more}))
    (tmp_path / "file" / "chat_template.jinja").write_text("a")
    assert different_templates(tmp_path / "file", tmp_path / "config") == []
    lines = different_templates(tmp_path / "file", tmp_path / "named")
    assert ["differ (default)" in lines[0], "(tools)" in lines[1]] == [True, True]
