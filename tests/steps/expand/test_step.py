from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from prunus.console import Console
from prunus.errors import ShapeError
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.expand.config import ExpandConfig
from prunus.steps.expand.step import Inputs, origins_of, run
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as prune
from tests.families import DISTINCT, make_teacher
from tests.tiny import load, make_model

IDS = torch.arange(2, 42).reshape(2, 20)


def expand(model: Path, **options: int) -> Path:
    out = model.parent / "larger"
    out.mkdir()
    run(ExpandConfig(**options), Inputs(model), out, Runtime(device="cpu"), Console())
    return out


@pytest.mark.parametrize("model_type", DISTINCT)
def test_a_larger_model_predicts_what_the_smaller_one_did(tmp_path: Path, model_type: str) -> None:
    model = make_teacher(tmp_path / "model", model_type)
    larger = expand(model, num_hidden_layers=7, intermediate_size=32)
    assert ModelFolder(larger).shape.num_hidden_layers == 7
    assert ModelFolder(larger).shape.intermediate_size == 32
    with torch.no_grad():
        torch.testing.assert_close(load(larger)(IDS).logits, load(model)(IDS).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2"])
def test_what_is_new_learns(tmp_path: Path, model_type: str) -> None:
    model = load(expand(make_teacher(tmp_path / "model", model_type), num_hidden_layers=5, intermediate_size=32))
    layer = model.get_submodule("transformer.h.1" if model_type == "gpt2" else "model.layers.1")
    before = {name: weight.detach().clone() for name, weight in layer.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):  # the first step moves what is nothing, the second what stands before it
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    still = [name for name, weight in layer.named_parameters() if torch.equal(weight, before[name])]
    assert not [name for name in still if not name.endswith("k_proj.bias")]


def test_a_cut_brings_the_smaller_one_back(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    larger, back = expand(model, num_hidden_layers=6), tmp_path / "back"
    back.mkdir()
    new = [layer for layer in range(1, 6) if origins_of(4, 6)[layer] == origins_of(4, 6)[layer - 1]]
    cut = PruneConfig.model_validate({"drop_layers": new})
    prune(cut, PruneInputs(larger), back, Runtime(device="cpu"), Console())
    weights = load(model).state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in load(back).state_dict().items())
    assert AutoTokenizer.from_pretrained(back).get_vocab() == AutoTokenizer.from_pretrained(model).get_vocab()


def test_layers_stand_evenly() -> None:
    assert origins_of(4, 6) == [0, 0, 1, 2, 2, 3]
    assert origins_of(2, 5) == [0, 0, 0, 1, 1]
    assert origins_of(3, 3) == [0, 1, 2]


def test_smaller_is_no_larger(tmp_path: Path) -> None:
    shape = ModelFolder(make_model(tmp_path / "model")).shape
    with pytest.raises(ShapeError, match=r"teacher\.expand\.intermediate_size: 40 is less than the model's 48"):
        ExpandConfig(intermediate_size=40).target(shape, "teacher.expand")
    with pytest.raises(ShapeError, match=r"teacher\.expand: no size is larger than the model's"):
        ExpandConfig(intermediate_size=48).target(shape, "teacher.expand")
    with pytest.raises(ValueError, match="nothing to expand"):
        ExpandConfig()
