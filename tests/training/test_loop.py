"""A step that would break a model is not taken."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.cli.main import main
from prunus.training.objectives import CrossEntropy


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
    words = [
        "correct",
        teacher,
        "--corpus",
        corpus,
        "--out",
        tmp_path / "out",
        "--tokens",
        2048,
        "--sequence-length",
        32,
    ]
    words += ["--sequence-length", 32, "--batch-size", 8, "--optimizer", optimizer]
    assert main([str(word) for word in words]) == 2
    assert "the gradient is not finite at step 1; the step is not taken" in capsys.readouterr().err
    assert all(parameter.isfinite().all() for parameter in seen[0].parameters())
    assert not (tmp_path / "out").exists()
