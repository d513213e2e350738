"""What arithmetic training is done in, and that training in bfloat16 works."""

from pathlib import Path

import pytest
import torch

from prunus.cli.main import main
from prunus.console import Console
from prunus.runtime import Runtime
from prunus.training import precision
from prunus.training.objectives import CrossEntropy
from prunus.training.precision import training_dtype
from tests.tiny import load, make_model


@pytest.mark.parametrize(("factor", "chosen"), [(2.0, torch.bfloat16), (1.05, torch.float32), (0.5, torch.float32)])
def test_a_probe_chooses_the_faster_type_and_changes_no_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factor: float, chosen: torch.dtype
) -> None:
    objective = CrossEntropy(load(make_model(tmp_path / "model")))
    portion = lambda: {"input_ids": torch.arange(40).reshape(2, 20)}  # noqa: E731
    monkeypatch.setattr(precision, "product_dtype", lambda _: torch.bfloat16)
    real = precision._seconds
    monkeypatch.setattr(
        precision, "_seconds", lambda *a: real(*a) * 0 + (factor if a[2] is torch.float32 else 1.0)
    )  # the passes are made, and their times set
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    state = torch.random.get_rng_state()
    assert training_dtype(objective, portion, Runtime(precision="probe"), Console(quiet=True)) is chosen
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_processor_without_bfloat16_is_not_probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    objective = CrossEntropy(load(make_model(tmp_path / "model")))
    monkeypatch.setattr(precision, "product_dtype", lambda _: torch.float32)
    monkeypatch.setattr(precision, "_seconds", None)
    assert training_dtype(objective, dict, Runtime(precision="probe"), Console(quiet=True)) is torch.float32


def test_without_a_probe_the_runtime_decides(tmp_path: Path) -> None:
    objective = CrossEntropy(load(make_model(tmp_path / "model")))
    for name, dtype in (("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        assert training_dtype(objective, dict, Runtime(precision=name, device="cpu"), Console(quiet=True)) is dtype


def test_training_in_bfloat16_ends_near_that_in_float32(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    found = []
    for name in ("float32", "bfloat16"):
        words = ["correct", teacher, "--corpus", corpus, "--out", tmp_path / name / "out", "--tokens", 20 * 8 * 32]
        words += ["--sequence-length", 32, "--batch-size", 8, "--warmup-steps", 1, "--learning-rate", 1e-2]
        words += ["--min-learning-rate", 1e-3, "--runtime.precision", name]
        assert main([str(word) for word in words]) == 0
        found.append(load(tmp_path / name / "out"))
    ids = torch.arange(40)[None]
    assert all(parameter.dtype == torch.float32 for parameter in found[1].parameters())
    with torch.no_grad():
        losses = [CrossEntropy(model)(ids).item() for model in found]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
