"""LFM2: the config of a checkpoint as transformers reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.errors import ModelError
from prunus.models.families.lfm2 import FAMILY
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from tests.cutting import logits, prune
from tests.families import SPECIAL, config_of, make_teacher, weights_of
from tests.tiny import load


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intermediate_size": 100, "block_multiple_of": 8},
        {"intermediate_size": 97, "block_multiple_of": 6, "block_ffn_dim_multiplier": 1.3},
        {"block_ff_dim": 50, "block_multiple_of": 4, "intermediate_size": 7},
        {"block_auto_adjust_ff_dim": False},
    ],
)
def test_the_neurons_are_those_that_transformers_derives(options: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    given = {key: value for key, value in SPECIAL["lfm2"].items() if key != "block_auto_adjust_ff_dim"}
    monkeypatch.setitem(SPECIAL, "lfm2", {**given, **options})
    config = config_of("lfm2")
    raw = {**config.to_dict(), **options}
    if "block_ff_dim" in options:  # transformers saves it under its newer name, published configs have the older
        raw["intermediate_size"] = 7
    (tmp_path / "config.json").write_text(json.dumps(raw))
    loaded = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    shape = ModelFolder(tmp_path).shape
    assert shape.intermediate_size == loaded.model.layers[0].feed_forward.w1.out_features
    assert shape.parameters == sum(p.numel() for _, p in weights_of(loaded))


def test_a_student_of_an_adjusted_teacher_has_plain_keys(tmp_path: Path, monkeypatch) -> None:
    options = {"block_auto_adjust_ff_dim": True, "intermediate_size": 40, "block_multiple_of": 8}
    monkeypatch.setitem(SPECIAL, "lfm2", {**SPECIAL["lfm2"], **options})
    teacher = make_teacher(tmp_path / "teacher", "lfm2")
    assert ModelFolder(teacher).shape.intermediate_size == 32
    out = prune(teacher, tmp_path / "out", intermediate_size=20)
    config = json.loads((out / "config.json").read_text())
    assert (config["intermediate_size"], config["block_auto_adjust_ff_dim"]) == (20, False)
    assert (config["layer_types"], config["full_attn_idxs"]) == (["conv", "full_attention"] * 2, [1, 3])
    shallow = json.loads((prune(teacher, tmp_path / "shallow", drop_layers=(0,)) / "config.json").read_text())
    assert (shallow["layer_types"], shallow["full_attn_idxs"]) == (["full_attention", "conv", "full_attention"], None)
    assert load(out).model.layers[0].feed_forward.w1.out_features == 20
    assert logits(prune(teacher, tmp_path / "same")).equal(logits(teacher))


def test_a_kind_of_layers_that_the_table_does_not_have_is_refused() -> None:
    config = {**config_of("lfm2").to_dict(), "layer_types": ["conv", "mamba", "conv", "full_attention"]}
    with pytest.raises(ModelError, match="layer_types: layer 1 is 'mamba'; allowed in LFM2: conv, full_attention"):
        Shape.from_config(config, FAMILY, "here")
