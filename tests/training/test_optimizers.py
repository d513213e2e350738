"""Two optimisers that step and are saved as one, and one with its state in 8 bits."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer

from prunus.steps.distill.config import DistillConfig
from prunus.training.optimizers import MuonWithAdamW, eight_bit_adamw, optimizer_of
from tests.tiny import load, make_model
from tests.training.test_muon import torchs_orthogonal

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="the extra `torchao` is not installed")
CONFIG = DistillConfig(tokens=0, learning_rate=1e-2, weight_decay=0.0, muon_momentum=0.9)


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_of_layers_are_muons_and_all_else_adamws(tmp_path: Path, tied: bool) -> None:
    model = load(make_model(tmp_path / "model", tie_word_embeddings=tied))
    optimizer = MuonWithAdamW(model, CONFIG)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices = {names[id(p)] for group in optimizer.muon.param_groups for p in group["params"]}
    others = {names[id(p)] for group in optimizer.adamw.param_groups for p in group["params"]}
    assert matrices == {name for name in names.values() if "_proj" in name}
    assert others == set(names.values()) - matrices
    assert ("lm_head.weight" in others) == (not tied)


def test_a_step_is_a_step_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.training.muon.orthogonal", torchs_orthogonal)
    ours, theirs = (load(make_model(tmp_path / name, seed=1)) for name in ("a", "b"))
    optimizer = MuonWithAdamW(ours, CONFIG)
    matrices = [p for n, p in theirs.named_parameters() if "_proj" in n]
    others = [p for n, p in theirs.named_parameters() if "_proj" not in n]
    by_hand = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    ids = torch.arange(40)[None] % 300
    for _ in range(3):
        for model, optimizers in ((ours, [optimizer]), (theirs, by_hand)):
            model.zero_grad()
            model(ids, labels=ids).loss.backward()
            for one in optimizers:
                one.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_schedule_reaches_both(tmp_path: Path) -> None:
    optimizer = MuonWithAdamW(load(make_model(tmp_path / "model")), CONFIG)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert {group["lr"] for part in (optimizer.muon, optimizer.adamw) for group in part.param_groups} == {5e-3}


@pytest.mark.parametrize("kind", ["muon", pytest.param("adamw_8bit", marks=needs_torchao)])
def test_the_state_is_saved_and_restored(tmp_path: Path, kind: str) -> None:
    config = CONFIG.model_copy(update={"optimizer": kind})
    model = load(make_model(tmp_path / "model", hidden_size=64))
    ids = torch.arange(40)[None] % 300

    def made() -> Optimizer:
        optimizer = optimizer_of(model, config)
        assert optimizer is not None
        return optimizer

    def step(optimizer: Optimizer) -> None:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()

    first = made()
    step(first)
    torch.save((model.state_dict(), first.state_dict()), tmp_path / "state.pt")
    step(first)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    weights, state = torch.load(tmp_path / "state.pt")
    model.load_state_dict(weights)
    second = made()
    second.load_state_dict(state)
    step(second)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@needs_torchao
def test_moments_in_eight_bits_train_nearly_as_those_in_float32(tmp_path: Path) -> None:
    ours, theirs = (load(make_model(tmp_path / name, seed=1, hidden_size=64)) for name in ("a", "b"))
    config = CONFIG.model_copy(update={"learning_rate": 1e-3, "weight_decay": 0.1})
    optimizer = eight_bit_adamw(ours, config)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    ids = torch.randint(0, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    losses = torch.zeros(10, 2)
    for row in losses:
        for i, (model, one) in enumerate(((ours, optimizer), (theirs, reference))):
            model.zero_grad()
            loss = model(ids, labels=ids).loss
            loss.backward()
            one.step()
            row[i] = loss.detach()
        schedule.step()
    fallen = losses[0] - losses
    assert (fallen[-1] > 2).all()
    assert (fallen[:, 0] - fallen[:, 1]).abs().max() < 0.02 * fallen.max()
    held = [state["exp_avg_sq"] for state in optimizer.state.values()]
    assert {type(each).__name__ for each in held} == {"OptimState8bit", "Tensor"}
    assert all(type(each) is torch.Tensor for each in held if each.numel() < 4096)
