import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prunus.errors import HubError, ModelError
from prunus.models.folder import ModelFolder
from prunus.models.locate import locate_model
from prunus.models.student import student_config
from prunus.steps.prune.config import PruneConfig
from tests.families import COMMON, SPECIAL
from tests.fuzz import fuzz


@pytest.fixture
def copy(teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher, tmp_path / "copy"))


def change(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_a_good_folder_passes(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    folder.check()
    assert folder.dtype == "F32"
    assert folder.nbytes == folder.shape.parameters * 4


def test_the_fingerprint_is_of_content_and_not_of_place(teacher: Path, copy: Path) -> None:
    assert ModelFolder(copy).fingerprint() == ModelFolder(teacher).fingerprint()
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, copy / "model.safetensors")
    assert ModelFolder(copy).fingerprint() != ModelFolder(teacher).fingerprint()
    assert ModelFolder(copy).tokenizer_fingerprint() == ModelFolder(teacher).tokenizer_fingerprint()


def test_config_and_weights_that_disagree(copy: Path) -> None:
    change(copy, intermediate_size=40)
    with pytest.raises(ModelError, match=r"is \[.*48.*\]; its config implies \[.*40.*\]"):
        ModelFolder(copy).check()
    change(copy, intermediate_size=48, num_hidden_layers=5)
    with pytest.raises(ModelError, match=r"model\.layers\.4\..* is missing"):
        ModelFolder(copy).check()
    change(copy, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"model\.layers\.3\..* is not one that"):
        ModelFolder(copy).check()


def test_a_stored_copy_of_a_tied_head_is_no_fault(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, copy / "model.safetensors")
    ModelFolder(copy).check()


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        _ = ModelFolder(tmp_path / "nowhere").config
    with pytest.raises(ModelError, match=r"no config.json"):
        _ = ModelFolder(tmp_path).config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        _ = ModelFolder(tmp_path).config
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="expected an object"):
        _ = ModelFolder(tmp_path).config
    with pytest.raises(ModelError, match="no tokenizer"):
        ModelFolder(tmp_path).tokenizer_fingerprint()


def test_a_model_that_is_nowhere(teacher: Path) -> None:
    assert locate_model(str(teacher), None, "x").folder.path == teacher
    with pytest.raises(ModelError, match=r"teacher.path: there is no folder \./nowhere"):
        locate_model("./nowhere", None, "teacher.path")
    with pytest.raises(HubError, match="cannot be fetched from the hub"):
        locate_model("nobody/nothing", None, "teacher.path")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "rope_parameters", "rope_scaling", "partial_rotary_factor", "n_inner",
    "tie_word_embeddings", "auto_map", "model_type", "num_experts", "num_experts_per_tok", "num_local_experts",
    "decoder_sparse_step", "sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern",
    "layer_types",
]  # fmt: skip


@fuzz(300)
@given(model_type=st.sampled_from(sorted(SPECIAL)), changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
def test_any_config_is_read_or_refused_and_never_a_crash(tmp_path_factory, model_type, changes) -> None:
    folder = tmp_path_factory.mktemp("config")
    config = {**COMMON, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "model_type": model_type}
    (folder / "config.json").write_text(json.dumps({**config, **SPECIAL[model_type], **changes}))
    read = ModelFolder(folder)
    try:
        student = PruneConfig(num_hidden_layers=1).target(read.shape, "prune")
        student_config(read.config, read.shape, student, [0])
    except ModelError as error:
        assert str(folder) in str(error) or "prune" in str(error)
