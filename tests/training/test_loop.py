"""The training loop: micro-batches, and steps that would break a model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from prunus.cli.main import main
from prunus.runtime import Runtime
from prunus.training.config import TrainingConfig
from prunus.training.loop import micro_batch_size, use_one_device
from prunus.training.objectives import CrossEntropy


def test_the_trainer_uses_the_named_device_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several GPUs, it would otherwise take the first, and replicate the model to all."""
    current = [0]
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments._n_gpu = 4
    use_one_device(arguments, torch.device("cpu"))
    assert arguments.n_gpu == 4
    use_one_device(arguments, torch.device("cuda:1"))
    assert (arguments.n_gpu, arguments.device, current[-1]) == (1, torch.device("cuda:1"), 1)
    use_one_device(arguments, torch.device("cuda"))
    assert arguments.device == torch.device("cuda:1")


class Broken(CrossEntropy):
    """A finite loss with a gradient that is not."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        weight = next(self.model.parameters())
        return super().forward(*args, **kwargs) + (weight.sum() * 0).abs().sqrt()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_gradient_that_is_not_finite_ends_the_run_before_the_step(
    teacher: Path, corpus: Path, tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[CrossEntropy] = []

    def broken(model: Any) -> CrossEntropy:
        seen.append(Broken(model))
        return seen[-1]

    monkeypatch.setattr("prunus.steps.correct.step.CrossEntropy", broken)
    words = ["correct", teacher, "--corpus", corpus, "--out", tmp_path / "out", "--tokens", 2048]
    words += ["--sequence-length", 32, "--batch-size", 8, "--optimizer", optimizer]
    assert main([str(word) for word in words]) == 2
    assert "the gradient is not finite at step 1; the step is not taken" in capsys.readouterr().err
    assert all(parameter.isfinite().all() for parameter in seen[0].parameters())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("processes", "batch", "device", "expected"),
    [(1, 8, 4, 4), (1, 9, 4, 3), (1, 7, 4, 1), (1, 4, 16, 4), (2, 8, 16, 4), (2, 12, 4, 3)],
)
def test_a_micro_batch_is_the_largest_that_fits_and_divides_the_batch(
    processes: int, batch: int, device: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    config = TrainingConfig(tokens=10_000, sequence_length=16, batch_size=batch)
    assert micro_batch_size(config, Runtime(device_batch_size=device)) == expected


def test_a_step_is_the_same_in_any_micro_batches(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    weights = []
    for size in (8, 2):
        out = tmp_path / str(size)
        words = ["correct", teacher, "--corpus", corpus, "--out", out, "--tokens", 256, "--sequence-length", 16]
        words += ["--batch-size", 8, "--optimizer", "adamw", "--runtime.device-batch-size", size]
        assert main([str(word) for word in words]) == 0
        weights.append(load_file(out / "model.safetensors"))
    before = load_file(teacher / "model.safetensors")
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, rtol=1e-4, atol=1e-6)
        assert not torch.equal(whole, before[name]), name
