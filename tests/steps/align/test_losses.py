"""The losses of alignment against slow references in plain Python, and by the identities that bind them."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.steps.align import losses

NATS = st.floats(-60, 60)
LOG = st.floats(-80, -0.01)
POSITIVE = st.floats(0.01, 3)
REWARDS = st.floats(-6, 6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x


def kl(a: float, b: float) -> float:
    """KL between two coins of log-odds a and b."""
    return sigmoid(a) * (log_sigmoid(a) - log_sigmoid(b)) + sigmoid(-a) * (log_sigmoid(-a) - log_sigmoid(-b))


def near(found: torch.Tensor, wanted: float, rel: float = 1e-9) -> None:
    assert found.item() == pytest.approx(wanted, rel=rel, abs=1e-9)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(NATS, NATS, NATS, NATS)
def test_the_gap(chosen: float, rejected: float, reference_chosen: float, reference_rejected: float) -> None:
    found = losses.gap(*(tensor(x) for x in (chosen, rejected, reference_chosen, reference_rejected)))
    near(found, chosen - reference_chosen - rejected + reference_rejected)


@given(NATS, POSITIVE, st.floats(0, 0.5))
def test_the_family_of_dpo(gap: float, beta: float, smoothing: float) -> None:
    near(losses.dpo(tensor(gap), beta), -log_sigmoid(beta * gap))
    near(losses.spin(tensor(gap), beta), math.log1p(math.exp(-beta * gap)))
    smooth = -(1 - smoothing) * log_sigmoid(beta * gap) - smoothing * log_sigmoid(-beta * gap)
    near(losses.cdpo(tensor(gap), beta, smoothing), smooth)
    near(losses.ipo(tensor(gap), beta), (gap - 1 / (2 * beta)) ** 2)


@given(NATS, REWARDS, POSITIVE, POSITIVE)
def test_rpo(gap: float, rewards: float, beta: float, eta: float) -> None:
    found = {name: losses.rpo(tensor(gap), tensor(rewards), beta, eta, name)
             for name in ("backward_kl", "forward_kl", "squared")}  # fmt: skip
    near(found["backward_kl"], kl(eta * rewards, beta * gap))
    near(found["forward_kl"], kl(beta * gap, eta * rewards))
    near(found["squared"], (beta * gap - eta * rewards) ** 2)


@given(NATS, REWARDS, POSITIVE, POSITIVE)
def test_backward_rpo_is_dpo_with_a_soft_label_less_its_entropy(gap, rewards, beta, eta) -> None:
    label = sigmoid(eta * rewards)
    entropy = -label * log_sigmoid(eta * rewards) - (1 - label) * log_sigmoid(-eta * rewards)
    soft = losses.cdpo(tensor(gap), beta, 1 - label)
    near(losses.rpo(tensor(gap), tensor(rewards), beta, eta), soft.item() - entropy)


@given(NATS, st.floats(0.5, 6), POSITIVE)
def test_rpo_with_endless_eta_is_dpo(gap: float, rewards: float, beta: float) -> None:
    near(losses.rpo(tensor(gap), tensor(rewards), beta, 1e6), losses.dpo(tensor(gap), beta).item())


@given(NATS, POSITIVE)
def test_squared_rpo_with_half_a_reward_is_ipo(gap: float, beta: float) -> None:
    found = losses.rpo(tensor(gap), tensor(0.5), beta, 1.0, "squared")
    near(found, beta**2 * losses.ipo(tensor(gap), beta).item())


@given(REWARDS, POSITIVE, POSITIVE)
def test_rpo_is_nought_where_the_model_agrees_with_the_rewards(rewards: float, beta: float, eta: float) -> None:
    gap = tensor(eta * rewards / beta).requires_grad_()
    for name in ("backward_kl", "forward_kl", "squared"):
        loss = losses.rpo(gap, tensor(rewards), beta, eta, name)
        near(loss, 0)
        near(torch.autograd.grad(loss.sum(), gap)[0], 0)


@given(LOG, LOG, st.integers(1, 50), st.integers(1, 50), POSITIVE, POSITIVE)
def test_those_without_a_reference(chosen, rejected, long, short, beta, gamma) -> None:
    given = (tensor(chosen), tensor(rejected), tensor(long), tensor(short))
    near(losses.simpo(*given, beta, gamma), -log_sigmoid(beta * chosen / long - beta * rejected / short - gamma))
    p, q = math.exp(chosen / long), math.exp(rejected / short)
    ratio = math.log(p / -math.expm1(chosen / long)) - math.log(q / -math.expm1(rejected / short))
    near(losses.orpo(*given, beta), -chosen / long - beta * log_sigmoid(ratio), rel=1e-7)
    near(losses.sft(given[0], given[2]), -chosen / long)


@given(NATS, st.floats(0, 20), POSITIVE)
def test_kto(ratio: float, baseline: float, beta: float) -> None:
    found = losses.kto(tensor(ratio, ratio), torch.tensor([True, False]), tensor(baseline)[0], beta, 2.0, 3.0)
    near(found[0], 2 * (1 - sigmoid(beta * (ratio - baseline))))
    near(found[1], 3 * (1 - sigmoid(beta * (baseline - ratio))))


def test_the_baseline_of_kto_is_never_negative_and_has_no_gradient() -> None:
    ratios = tensor(-3, 1, 5).requires_grad_()
    near(losses.kto_baseline(ratios), 1)
    near(losses.kto_baseline(-ratios), 0)
    assert not losses.kto_baseline(ratios).requires_grad


@given(NATS, NATS, REWARDS)
def test_rewards(chosen: float, rejected: float, margin: float) -> None:
    found = losses.bradley_terry(tensor(chosen), tensor(rejected), margin)
    near(found, -log_sigmoid(chosen - rejected - margin))


EXTREME: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dpo": lambda x: losses.dpo(x, 1.0),
    "cdpo": lambda x: losses.cdpo(x, 1.0, 0.1),
    "backward": lambda x: losses.rpo(x, torch.ones_like(x), 1.0, 1e3),
    "forward": lambda x: losses.rpo(x, torch.ones_like(x), 1.0, 1e3, "forward_kl"),
    "kto": lambda x: losses.kto(x, x > 0, x.new_zeros(()), 1.0),
    "odds": lambda x: losses.log_odds(-x.abs() - 1e-6),
}


@pytest.mark.parametrize("name", EXTREME)
def test_nothing_overflows(name: str) -> None:
    gap = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4], requires_grad=True)
    loss = EXTREME[name](gap)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert gap.grad is not None
    assert gap.grad.isfinite().all()
