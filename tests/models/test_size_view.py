"""A size of a nest in training is the size as it is cut out."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from prunus.models.families.table import FAMILIES
from prunus.models.load import ready
from prunus.models.nest import own_norms, read_nest
from prunus.models.size_view import SizeView
from tests.cutting import TEXT, plain, score
from tests.families import DISTINCT, make_teacher
from tests.nests import NESTING, cut, sizes_of, written

MIXTURES = [name for name in NESTING if FAMILIES[name].experts is not None]


def views_of(folder: Path, model: PreTrainedModel) -> dict[str, SizeView]:
    nest = read_nest(folder)
    return {
        size.name: SizeView(model, nest.largest.shape, nest.folder.config, size, own_norms(nest, size))
        for size in nest.smaller
    }


def loss_of(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TEXT, use_cache=False).logits.square().mean()


@pytest.mark.parametrize("model_type", NESTING)
def test_a_view_computes_what_the_size_computes(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    folder = cut(teacher, tmp_path / "nest", score(teacher, tmp_path), nest=sizes_of(teacher))
    model = plain(folder).float()
    for size in read_nest(folder).smaller:
        view = views_of(folder, model)[size.name]
        alone = ready(plain(written(folder, size, tmp_path / size.name)).float())
        with torch.no_grad():
            ours = view.run(lambda one: one(input_ids=TEXT, use_cache=False).logits)
            torch.testing.assert_close(ours, alone(input_ids=TEXT, use_cache=False).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model_type", [name for name in DISTINCT if FAMILIES[name].experts is None and FAMILIES[name].nests]
)
def test_gradients_are_those_of_the_size_that_changed_weights_give(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    folder = cut(teacher, tmp_path / "nest", score(teacher, tmp_path), nest=sizes_of(teacher))
    small = read_nest(folder).sizes[-1]
    model = plain(folder).float()
    view = views_of(folder, model)["small"]
    view.run(loss_of).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    draw = torch.Generator().manual_seed(0)
    steps = {name: torch.randn(gradient.shape, generator=draw) * 3e-4 for name, gradient in gradients.items()}
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in steps:
                    parameter.add_(steps[name], alpha=sign if sign == 1 else -2)
        moved = shutil.copytree(folder, tmp_path / f"moved{sign}")
        model.save_pretrained(moved)
        losses.append(loss_of(plain(written(moved, small, tmp_path / f"small{sign}"))).item())
    expected = sum(float((gradients[name] * step).sum()) for name, step in steps.items())
    assert (losses[0] - losses[1]) / 2 == pytest.approx(expected, rel=0.02, abs=1e-5)


def test_gradients_of_its_own_norms_are_those_of_the_size(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "llama")
    folder = cut(teacher, tmp_path / "nest", score(teacher, tmp_path), nest=sizes_of(teacher))
    view = views_of(folder, plain(folder).float())["small"]
    view.run(loss_of).backward()
    alone = plain(written(folder, read_nest(folder).sizes[-1], tmp_path / "small")).float()
    loss_of(alone).backward()
    assert len(view.norms) == 2 * 2 + 1
    for name, gain in view.norms.items():
        torch.testing.assert_close(gain.grad, alone.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model_type", [name for name in DISTINCT if name in MIXTURES])
def test_gradients_of_experts_are_those_of_the_size(tmp_path: Path, model_type: str) -> None:
    # the least change of a weight may send a token to another expert, so differences of losses say nothing
    teacher = make_teacher(tmp_path / "teacher", model_type)
    folder = cut(teacher, tmp_path / "nest", score(teacher, tmp_path), nest=sizes_of(teacher))
    model = plain(folder).float()
    view = views_of(folder, model)["small"]
    view.run(loss_of).backward()
    alone = plain(written(folder, read_nest(folder).sizes[-1], tmp_path / "small")).float()
    loss_of(alone).backward()
    layers = read_nest(folder).sizes[-1].layers
    for kind in ("gate_up_proj", "down_proj"):
        for j, i in enumerate(layers):
            ours = model.get_parameter(f"model.layers.{i}.mlp.experts.{kind}").grad
            theirs = alone.get_parameter(f"model.layers.{j}.mlp.experts.{kind}").grad
            if kind == "gate_up_proj":  # the gate's rows, then the up projection's
                ours = torch.cat([ours[:, :12], ours[:, 20:32]], dim=1)
            torch.testing.assert_close(ours[:3, : theirs.shape[1], : theirs.shape[2]], theirs, rtol=1e-4, atol=1e-6)
            assert ours.abs().sum().item() == pytest.approx(theirs.abs().sum().item(), rel=1e-4)
