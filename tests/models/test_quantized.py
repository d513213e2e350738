"""Frozen models in few bits, against weights that are rounded one by one."""

from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from prunus.errors import ModelError, RecipeError
from prunus.models.bits import GROUP, check_bits, frozen_bytes
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.quantized import LINEAR, Linear4, Linear8, load_frozen
from tests.families import SPECIAL, make_teacher
from tests.tiny import load, make_model

CPU = torch.device("cpu")
DENSE = [name for name in SPECIAL if FAMILIES[name].experts is None]
IDS = torch.arange(24).reshape(2, 12)


def weights_of(module: torch.nn.Module, features: int) -> torch.Tensor:
    """The weights that a module computes with, [O, I], read off its outputs."""
    return module(torch.eye(features)).T - (0 if module.bias is None else module.bias[:, None])


@pytest.mark.parametrize("features", [GROUP, 2 * GROUP, GROUP + 5, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_each_weight_is_the_nearest_of_its_rows_or_groups_values(features: int, biased: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(7, features), torch.randn(7) if biased else None
    eight = weights_of(Linear8(weight, bias), features)
    scale = weight.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(eight, (weight / scale).round() * scale)
    four = Linear4(weight, bias)
    found = weights_of(four, features)
    for row, values in enumerate(weight):
        for group, part in enumerate(values.split(GROUP)):
            least, scale = four.least[row, group].float(), four.scale[row, group].float()
            allowed = least + scale * torch.arange(16.0)
            nearest = allowed[(part[:, None] - allowed).abs().argmin(1)]
            mine = found[row, group * GROUP : group * GROUP + len(part)]
            torch.testing.assert_close((mine - part).abs(), (nearest - part).abs(), atol=1e-5, rtol=0)


def test_sixteen_values_are_kept_and_equal_weights_too() -> None:
    steps = torch.arange(16.0).repeat(2)[torch.randperm(32)] / 8 - 1
    torch.testing.assert_close(weights_of(Linear4(steps[None], None), GROUP)[0], steps)
    for value in (0.0, 0.75, -3.0):
        for kind in LINEAR.values():
            same = weights_of(kind(torch.full((2, GROUP), value), None), GROUP)
            torch.testing.assert_close(same, torch.full((2, GROUP), value), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", DENSE)
def test_a_quantised_model_computes_as_one_with_rounded_weights(family: str, bits: int, tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", family)
    frozen, plain = load_frozen(folder, CPU, torch.float32, bits), load_model(folder, CPU, torch.float32)
    kinds = 0
    for name, module in frozen.named_modules():
        if isinstance(module, (Linear4, Linear8)):
            whole, kinds = plain.get_submodule(name), kinds + 1
            features = whole.weight.shape[0] if isinstance(whole, Conv1D) else whole.in_features
            rounded = weights_of(module, features)
            with torch.no_grad():
                whole.weight.copy_(rounded.T if isinstance(whole, Conv1D) else rounded)
    assert kinds >= 2 * plain.config.get_text_config().num_hidden_layers
    with torch.no_grad():
        torch.testing.assert_close(frozen(IDS).logits, plain(IDS).logits, atol=2e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    stored = {tensor.data_ptr(): tensor.nbytes for tensor in frozen.parameters()}
    buffers = [b for module in frozen.modules() if isinstance(module, (Linear4, Linear8)) for b in module.buffers()]
    found = [getattr(module, "bias", None) for module in frozen.modules()]
    biases = sum(bias.nbytes for bias in found if torch.is_tensor(bias))
    given = sum(stored.values()) + sum(buffer.nbytes for buffer in buffers)
    expected = frozen_bytes(ModelFolder(folder).shape, bits)
    assert expected == pytest.approx(given, abs=biases + (0.02 * given if family == "gpt2" else 0))


def test_other_weights_are_in_the_runs_precision_whatever_the_checkpoints(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        frozen = load_frozen(folder, CPU, dtype, 4)
        assert {parameter.dtype for parameter in frozen.parameters()} == {dtype}
        assert {m.scale.dtype for m in frozen.modules() if isinstance(m, Linear4)} == {torch.float16}
        with torch.no_grad():
            assert frozen(IDS).logits.dtype == dtype
    assert load_frozen(folder, CPU, torch.float32, None).state_dict().keys() == load(folder).state_dict().keys()


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "mixtral")
    with pytest.raises(ModelError, match="teacher_bits: mixtral is a mixture of experts"):
        load_frozen(folder, CPU, torch.float32, 8)
    with pytest.raises(RecipeError, match=r"distill.teacher_bits: 8; not for a mixture .* allowed: to leave it out"):
        check_bits(8, ModelFolder(folder).shape, "distill.teacher_bits")
    check_bits(None, ModelFolder(folder).shape, "distill.teacher_bits")
