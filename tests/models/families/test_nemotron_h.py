"""Nemotron-H: the kinds of layers in a config.json of any age."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from tests.cutting import logits, prune
from tests.families import make_teacher


@pytest.mark.parametrize(
    "given",
    [
        {"hybrid_override_pattern": "M-M*"},
        {"layers_block_type": ["mamba", "mlp", "mamba", "attention"], "num_hidden_layers": 52},
        {
            "hybrid_override_pattern": "M-M*",
            "mamba_n_groups": 2,
            "mamba_d_conv": 3,
            "n_groups": None,
            "conv_kernel": None,
        },
    ],
)
def test_older_configs_are_read_as_transformers_reads_them(tmp_path: Path, given: dict[str, Any]) -> None:
    teacher = make_teacher(tmp_path / "teacher", "nemotron_h")
    expected, shape = logits(teacher), ModelFolder(teacher).shape
    config = json.loads((teacher / "config.json").read_text())
    for key in ("layers_block_type", "layer_types", "num_hidden_layers", "hybrid_override_pattern"):
        config.pop(key, None)
    config = {key: value for key, value in {**config, **given}.items() if value is not None}
    (teacher / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(teacher).num_hidden_layers == 4
    assert ModelFolder(teacher).shape == shape
    ModelFolder(teacher).check()
    assert logits(prune(teacher, tmp_path / "out")).equal(expected)


def test_layers_of_experts_are_refused(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "nemotron_h")
    config = json.loads((teacher / "config.json").read_text())
    config.pop("layers_block_type", None)
    (teacher / "config.json").write_text(json.dumps({**config, "hybrid_override_pattern": "MEM*"}))
    message = "layers_block_type: layer 1 is 'moe'; allowed in Nemotron-H: linear_attention, full_attention, mlp"
    with pytest.raises(ModelError, match=message):
        _ = ModelFolder(teacher).shape
