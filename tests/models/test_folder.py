import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.models.locate import locate_model


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
    with pytest.raises(ModelError, match=r"is \[.*48.*\]; its config asks for \[.*40.*\]"):
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
    with pytest.raises(ModelError, match="not an object"):
        _ = ModelFolder(tmp_path).config
    with pytest.raises(ModelError, match="no tokenizer"):
        ModelFolder(tmp_path).tokenizer_fingerprint()


def test_a_model_that_is_nowhere(teacher: Path) -> None:
    assert locate_model(str(teacher), None, "x") == teacher
    with pytest.raises(ModelError, match=r"teacher.path: there is no folder \./nowhere"):
        locate_model("./nowhere", None, "teacher.path")
    with pytest.raises(ModelError, match="the hub does not give it"):
        locate_model("nobody/nothing", None, "teacher.path")
