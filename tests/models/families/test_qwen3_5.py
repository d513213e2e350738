"""Qwen3.5: what a checkpoint has besides the model that transformers loads."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunus.errors import ModelError, RecipeError, ShapeError
from prunus.gguf.metadata import check_shape
from prunus.models.folder import ModelFolder
from prunus.steps.prune.config import PruneConfig
from tests.cutting import logits, prune
from tests.families import make_teacher


def test_weights_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "qwen3_5_text")
    file = teacher / "model.safetensors"
    extra = {"mtp.fc.weight": np.ones((32, 64), np.float32), "mtp.norm.weight": np.ones(32, np.float32)}
    before = load_file(file)
    save_file({**before, **extra}, file, metadata={"format": "pt"})
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "mtp_num_hidden_layers": 1}))
    folder = ModelFolder(teacher)
    folder.check()
    assert folder.ignored == sorted(extra)
    out = prune(teacher, tmp_path / "out")
    assert load_file(out / "model.safetensors").keys() == before.keys()
    assert json.loads((out / "config.json").read_text())["mtp_num_hidden_layers"] == 0
    assert logits(out).equal(logits(teacher))


def test_a_depth_cut_writes_the_kinds_of_its_layers(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "qwen3_5_text")
    config = json.loads((teacher / "config.json").read_text())
    del config["layer_types"]
    (teacher / "config.json").write_text(json.dumps({**config, "full_attention_interval": 2}))
    written = json.loads((prune(teacher, tmp_path / "out", drop_layers=(0,)) / "config.json").read_text())
    assert written["layer_types"] == ["full_attention", "linear_attention", "full_attention"]
    assert written["full_attention_interval"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"linear_num_value_heads": 3},
            r"linear_num_value_heads: 3 heads cannot be shared by 2 key heads of at most 2",
        ),
        ({"linear_num_key_heads": 3}, "linear_num_key_heads: 3 is more than the teacher's 2"),
        ({"mamba_num_heads": 2}, "mamba_num_heads: 2 is more than the teacher's 0"),
    ],
)
def test_heads_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    shape = ModelFolder(make_teacher(tmp_path / "teacher", "qwen3_5_text")).shape
    with pytest.raises(ShapeError, match=message):
        PruneConfig.model_validate(options).target(shape, "prune")
    assert PruneConfig(linear_num_key_heads=1).target(shape, "prune").linear_num_value_heads == 2


def test_heads_that_groups_cannot_share_are_no_model(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "qwen3_5_text")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "linear_num_value_heads": 5}))
    with pytest.raises(ModelError, match="linear_num_value_heads is 5, no multiple of linear_num_key_heads = 2"):
        _ = ModelFolder(teacher).shape


def test_llama_cpp_needs_heads_of_one_size(tmp_path: Path) -> None:
    folder = ModelFolder(make_teacher(tmp_path / "teacher", "qwen3_5_text"))
    with pytest.raises(RecipeError, match="linear_key_head_dim is 8, linear_value_head_dim 6"):
        check_shape(folder.config, folder.shape, "export")
