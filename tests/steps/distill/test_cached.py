"""Distillation from stored targets, compared with distillation from the teacher."""

import numpy as np
import pytest
import torch

from prunus.steps.distill.cached import CachedDistillation, kept_probabilities
from prunus.steps.distill.objective import make_objective
from prunus.steps.targets.choose import chances, drawn, top_k
from tests.steps.distill.test_objective import IDS, options, pair

__all__ = ["pair"]  # a fixture


def targets(teacher, count: int, temperature: float) -> dict[str, torch.Tensor]:
    """As training reads them, computed from full logits."""
    with torch.no_grad():
        actual = top_k(teacher(IDS).logits.flatten(0, 1), count, temperature)
    assert actual.log_probabilities is not None
    kept = {"target_ids": actual.ids.int(), "target_log_probabilities": actual.log_probabilities.half()}
    return {name: values.view(*IDS.shape, -1) for name, values in kept.items()}


def samples(teacher, block: int) -> dict[str, torch.Tensor]:
    """50 samples for each token, drawn with the seed of the block of that number."""
    with torch.no_grad():
        logits = teacher(IDS).logits.flatten(0, 1)
    lots = torch.from_numpy(chances(1, block, len(logits), 50))
    return {"target_ids": drawn(logits, lots, 1.0).ids.int().view(*IDS.shape, -1)}


def loss_and_gradients(objective, *weights, **targets) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and its gradients."""
    objective.model.zero_grad()
    loss = objective(IDS, *weights, **targets)
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in objective.model.named_parameters()}


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The error of all gradients relative to their size."""
    off = sum((one[name] - two[name]).square().sum() for name in one)
    return float((off / sum(gradient.square().sum() for gradient in two.values())).sqrt())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("text", [0.0, 0.3])
def test_storing_all_tokens_equals_the_teacher_but_for_rounding(pair, temperature: float, text: float) -> None:
    student, teacher = pair
    weights = torch.rand(2, 20)
    weights[0, :7] = 0
    config = options(temperature=temperature, cross_entropy_weight=text)
    loss, gradients = loss_and_gradients(make_objective(config, student, teacher, None), weights)
    cached = CachedDistillation(student, config)
    actual, similar = loss_and_gradients(cached, weights, **targets(teacher, 300, temperature))
    assert actual == pytest.approx(loss, rel=1e-3)
    assert distance(similar, gradients) < 1e-3
    assert cached.figures["forward_kl"].item() > 0


def test_the_likeliest_are_top_k(pair) -> None:
    student, teacher = pair
    loss, gradients = loss_and_gradients(make_objective(options(top_k=8), student, teacher, None))
    actual, similar = loss_and_gradients(CachedDistillation(student, options()), **targets(teacher, 8, 1.0))
    assert actual == pytest.approx(loss, rel=1e-3)
    assert distance(similar, gradients) < 1e-3


def test_samples_have_the_teachers_gradient_on_average(pair) -> None:
    student, teacher = pair
    _, gradients = loss_and_gradients(make_objective(options(), student, teacher, None))
    cached = CachedDistillation(student, options())
    draws = [loss_and_gradients(cached, **samples(teacher, block))[1] for block in range(64)]
    mean = {name: torch.stack([draw[name] for draw in draws]).mean(0) for name in gradients}
    assert distance(mean, gradients) < distance(draws[0], gradients) / 6  # as 1 / sqrt of their number, 1 / 8


def test_probabilities_sum_to_one_despite_rounding() -> None:
    rounded = torch.randn(50, 9).log_softmax(-1).half().float()
    actual = kept_probabilities(rounded)
    torch.testing.assert_close(actual.sum(-1) + rounded[:, -1].exp(), torch.ones(50))
    np.testing.assert_allclose(actual, rounded[:, :-1].exp(), rtol=4e-3)
