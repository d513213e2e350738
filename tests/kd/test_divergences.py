"""The table of losses by a teacher: whole, and a formula alone is enough for a new one."""

from typing import get_args

import pytest
import torch

from prunus.kd.config import GuideConfig, Loss
from prunus.kd.divergences import LOSSES, by_autograd, divergence_of, may_compile
from prunus.kd.divergences import Loss as Entry
from prunus.models.head import Head
from prunus.training.head import CHUNK, head_loss
from tests.kd.test_losses import FORMULAS


def test_every_loss_has_an_entry_and_none_has_none() -> None:
    assert [*LOSSES, "cross_entropy"] == list(get_args(Loss))
    assert set(FORMULAS) < set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_kernel_and_autograd_give_the_same(name: str) -> None:
    torch.manual_seed(4)
    config = GuideConfig(loss=name, temperature=1.7, beta=0.3)
    student, teacher = torch.randn(2, 5, 11, dtype=torch.float64)
    by_kernel, by_formula = student.clone(), student.clone()
    wanted = Entry(LOSSES[name].formula).rows(config)(by_formula, teacher.clone())
    torch.testing.assert_close(divergence_of(config)(by_kernel, teacher.clone()), wanted)
    torch.testing.assert_close(by_kernel, by_formula)
    assert may_compile(config)


def alpha_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float, beta: float) -> torch.Tensor:
    """A loss that nobody has written a kernel for."""
    p_s, p_t = (torch.softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return (1 - (p_s**beta * p_t ** (1 - beta)).sum(dim=-1)) / (beta * (1 - beta)) * temperature**2


def test_a_formula_alone_is_a_loss_through_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, of several blocks of rows; gradients by hidden states and head are autograd's on whole logits."""
    monkeypatch.setitem(CHUNK, "cpu", 6)
    monkeypatch.setattr("prunus.training.head._BLOCK", 3 * 9)
    monkeypatch.setitem(LOSSES, "forward_kl", Entry(alpha_divergence))
    config = GuideConfig(temperature=2.0, beta=0.4)
    assert not may_compile(config)
    torch.manual_seed(6)
    hidden, weight = torch.randn(14, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    teacher = torch.randn(14, 9, dtype=torch.float64)
    compare = divergence_of(config)

    class Rows:
        def begin(self, tokens: slice) -> None: ...

        def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
            return compare(logits, teacher[tokens])

    found = [part.clone().requires_grad_() for part in (hidden, weight)]
    wanted = [part.clone().requires_grad_() for part in (hidden, weight)]
    total = head_loss(found[0], Head(found[1], None, 1.0, None), Rows())
    whole = alpha_divergence(wanted[0] @ wanted[1].T, teacher, 2.0, 0.4).sum()
    total.backward()
    whole.backward()
    torch.testing.assert_close(total, whole)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_autograd_leaves_the_gradient_over_the_logits() -> None:
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    given = student.clone()
    losses = by_autograd(lambda s, t: (s - t).square().sum(dim=-1), given, teacher)
    torch.testing.assert_close(losses, (student - teacher).square().sum(dim=-1))
    torch.testing.assert_close(given, 2 * (student - teacher))
