"""Sums over windows of held-out text, against whole logits of one window at a time in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from prunus.data.windows import Window
from prunus.inference import heldout
from prunus.inference.heldout import Predictor, measure, padded
from tests.families import make_teacher

LENGTHS = ((17, 1), (33, 9), (5, 1), (2, 1))  # tokens of a window, and how many of them are context


def windows(seed: int) -> list[Window]:
    draw = np.random.default_rng(seed)
    return [Window(draw.integers(3, 290, length), context, 0.0) for length, context in LENGTHS]


def pair(folder: Path, model_type: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A teacher, and a student whose weights have some noise."""
    path = make_teacher(folder / "model", model_type)
    teacher, student = (AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval() for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).to(dtype))
    return teacher, student


def log_probs(model: PreTrainedModel, window: Window) -> torch.Tensor:
    """Log-probabilities of the tokens that are predicted, from whole logits."""
    logits = model(input_ids=torch.from_numpy(window.ids)[None], use_cache=False).logits[0]
    return logits[window.context - 1 : -1].double().log_softmax(dim=-1)


@torch.no_grad()
def reference(model: PreTrainedModel, teacher: PreTrainedModel, window: Window) -> list[float]:
    ours, theirs = log_probs(model, window), log_probs(teacher, window)
    targets = torch.from_numpy(window.ids)[window.context :, None]
    kl = (theirs.exp() * (theirs - ours)).sum()
    agreed = (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).sum()
    variation = torch.clamp(theirs.exp() - ours.exp(), min=0).sum()  # what the teacher has more of
    likelihoods = (-ours.gather(1, targets).sum(), -theirs.gather(1, targets).sum())
    return [float(x) for x in (*likelihoods, kl, agreed, variation)]


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "granite", "gpt2"])
@pytest.mark.parametrize("is_whole", [False, True])
def test_sums_of_parts(model_type: str, is_whole: bool, tmp_path: Path, monkeypatch) -> None:
    """Parts of seven positions, which end within windows."""
    monkeypatch.setattr(heldout, "LOGIT_BYTES", 7 * 4 * 300)
    teacher, student = pair(tmp_path, model_type, torch.float32)
    chosen = windows(seed=1)
    given = [Predictor.of(model) for model in (student, teacher)]
    assert all(one.head is not None for one in given)
    if is_whole:
        given = [replace(one, head=None) for one in given]
    found = measure(*given, *padded(chosen))
    exact = [reference(student.double(), teacher.double(), window) for window in chosen]
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-4, atol=1e-4)
    alone = measure(given[0], None, *padded(chosen)) if not is_whole else None
    if alone is not None:
        assert torch.equal(alone[:, 0], alone[:, 1])
        assert (alone[:, 2] == 0).all()


def test_a_head_that_is_not_the_models_is_not_used(tmp_path: Path, monkeypatch) -> None:
    teacher, _ = pair(tmp_path, "gemma2", torch.float32)
    config = teacher.config.get_text_config()
    monkeypatch.setattr(config, "model_type", "unknown")  # so that its soft cap is not known
    assert Predictor.of(teacher).head is None
