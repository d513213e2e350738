"""Muon's step: torch's but for the iterations, and what these make of singular values in any type."""

import math

import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

from prunus.training.muon import _COEFFICIENTS, Muon, orthogonal


def torchs_orthogonal(matrix: torch.Tensor, _: torch.dtype) -> torch.Tensor:
    """Five iterations with the same coefficients, in bfloat16."""
    return _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)


def polynomial(s: torch.Tensor) -> torch.Tensor:
    """What the iterations make of singular values."""
    for a, b, c in _COEFFICIENTS:
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(7, 31), (31, 7), (16, 16), (1, 5), (99, 110)])
def test_the_polynomial_is_applied_to_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    expected = polynomial(s / (s**8).sum() ** (1 / 8))
    result = orthogonal(matrix, torch.float32)
    torch.testing.assert_close(result.double(), u @ torch.diag(expected) @ v, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize(
    ("products", "smallest"),  # of the largest, which is at least 0.56 after scaling, for 100 of them
    [(torch.float32, 1.0), (torch.float32, 0.006), (torch.bfloat16, 1.0), (torch.bfloat16, 0.1)],
)
def test_singular_values_end_near_1_whatever_their_spread(products: torch.dtype, smallest: float, scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(100, 160, generator=draw), full_matrices=False)
    matrix = scale * u @ torch.diag(torch.logspace(math.log10(smallest), 0, 100)) @ v
    result = orthogonal(matrix, products)
    assert result.dtype == products
    values = torch.linalg.svdvals(result.float())
    assert values.min() > 0.7
    assert values.max() < 1.3


def test_the_coefficients_are_the_best_ones() -> None:
    """Each quintic is the minimax approximation of 1 on its interval: its error has the same size at four points."""
    low, high = 0.003, 1.02
    for given in _COEFFICIENTS:
        inner, error = [(3 * low + high) / 4, (low + 3 * high) / 4], math.inf
        while True:  # Remez: solve for four points, then move the inner two to the extrema
            points = [(low, 1), (inner[0], -1), (inner[1], 1), (high, -1)]
            system = torch.tensor([[x, x**3, x**5, sign] for x, sign in points], dtype=torch.float64)
            *best, new = torch.linalg.solve(system, torch.ones(4, dtype=torch.float64)).tolist()
            if abs(new - error) < 1e-12:
                break
            error, (a, b, c) = new, best
            root = math.sqrt(9 * b * b - 20 * a * c)
            inner = sorted(math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
        assert given == pytest.approx(best, abs=1e-4)
        low, high = (1 - error) / 1.02, (1 + error) * 1.02
    assert error < 0.24


def test_no_gradient_at_all_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 5), torch.float32).any()


def test_but_for_the_iterations_a_step_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.training.muon.orthogonal", torchs_orthogonal)

    def matrices() -> list[torch.Tensor]:
        draw = torch.Generator().manual_seed(1)
        return [torch.randn(shape, generator=draw).requires_grad_() for shape in ((12, 5), (5, 12), (9, 9))]

    ours, theirs = matrices(), matrices()
    options = {"lr": 0.03, "weight_decay": 0.2, "momentum": 0.8}
    pairs = [
        (ours, Muon(ours, torch.bfloat16, **options)),
        (theirs, torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)),
    ]
    for _ in range(3):
        for group, optimizer in pairs:
            optimizer.zero_grad()
            sum((matrix**3).sum() for matrix in group[:-1]).backward()  # the last has no gradient
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
