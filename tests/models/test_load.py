import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model, save_model, saved_dtype
from prunus.models.locate import locate_model
from prunus.models.pretrained import load_tokenizer
from tests.families import make_teacher
from tests.tiny import make_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_was_trained_in_float32_is_saved_as_it_came(tmp_path: Path, dtype: torch.dtype) -> None:
    """Rotary frequencies stay in float32, as every loader has them: rounded, they would turn late positions astray."""
    source = make_model(tmp_path / "model", dtype=dtype, head_dim=16)
    model = load_model(source, CPU, torch.float32)
    assert save_model(model, tmp_path / "saved", dtype) == 0
    assert {weight.dtype for weight in load_model(tmp_path / "saved", CPU, dtype).parameters()} == {dtype}


def test_a_model_that_comes_along() -> None:
    folder = locate_model("builtin:sapling", None, "teacher.path").folder
    folder.check()
    assert folder.dtype == "BF16"
    assert sum(file.stat().st_size for file in folder.path.iterdir()) <= 16 * 2**20
    model, tokenizer = load_model(folder.path, CPU, torch.float32), load_tokenizer(folder.path)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id


def test_one_that_does_not() -> None:
    with pytest.raises(
        ModelError, match=r"teacher.path: unknown 'builtin:saplign' \(did you mean `builtin:sapling`\?\)"
    ):
        locate_model("builtin:saplign", None, "teacher.path")


def large(folder: Path, value: float, **config: Any) -> Path:
    """A model in bfloat16 with one weight of that value."""
    make_model(folder, dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in {**found, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_weights_that_the_named_type_cannot_hold_are_refused_on_loading(tmp_path: Path, key: str) -> None:
    source = large(tmp_path / "large", 1e5, **{"dtype": None, key: "float16"})
    with pytest.raises(ModelError, match=r"dtype is float16, in which model.norm.weight would be infinite"):
        load_model(source, CPU, torch.float32)
    fits = large(tmp_path / "fits", 1e4, **{"dtype": None, key: "float16"})
    model = load_model(fits, CPU, torch.float32)
    assert save_model(model, tmp_path / "saved", saved_dtype(ModelFolder(fits))) == 0
    assert ModelFolder(tmp_path / "saved").dtype == "F16"


def test_weights_that_grow_out_of_their_type_are_saved_in_a_wider_one(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", dtype=torch.float16)
    model = load_model(source, CPU, torch.float32)
    with torch.no_grad():
        model.model.norm.weight[0] = 1e5
    with pytest.warns(UserWarning, match=r"model.norm.weight has grown beyond torch.float16"):
        save_model(model, tmp_path / "saved", saved_dtype(ModelFolder(source)))
    saved = ModelFolder(tmp_path / "saved")
    assert (saved.dtype, saved.config["dtype"]) == ("BF16", "bfloat16")
    load_model(tmp_path / "saved", CPU, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_where_a_config_names_no_type_the_weights_do(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make_model(tmp_path / "model", dtype=dtype)
    config = json.loads((source / "config.json").read_text())
    del config["dtype"]
    (source / "config.json").write_text(json.dumps(config))
    assert saved_dtype(ModelFolder(source)) == AutoModelForCausalLM.from_pretrained(source, dtype="auto").dtype == dtype


def test_an_adapter_is_refused_on_loading(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="an adapter"):
        load_model(source, CPU, torch.float32)


def test_gemma_2_caps_the_logits_of_attention(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "gemma2")
    config = json.loads((folder / "config.json").read_text())
    ids = torch.arange(3, 27).reshape(2, 12)
    outputs = []
    for cap in (0.05, None):
        (folder / "config.json").write_text(json.dumps({**config, "attn_logit_softcapping": cap}))
        with torch.no_grad():
            outputs.append(load_model(folder, torch.device("cpu"), torch.float32)(ids).logits)
    assert not torch.allclose(*outputs, atol=1e-3)
