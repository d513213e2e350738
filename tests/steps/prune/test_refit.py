"""Least squares from sums over tokens, against the same fit on all tokens at once."""

import torch

from prunus.steps.prune.refit import Gram, Inner

CPU = torch.device("cpu")


def summed(x: torch.Tensor, y: torch.Tensor, size: torch.Tensor | None = None) -> Gram:
    """The sums, added in two parts."""
    gram = Gram.empty(x.shape[-1], y.shape[-1], CPU)
    for part in (slice(None, 20), slice(20, None)):
        gram.add(x[part], y[part], None if size is None else size[part])
    return gram


def test_the_fit_is_ridge_regression_about_the_present_weights() -> None:
    torch.manual_seed(0)
    x, y, weight = torch.randn(50, 6), torch.randn(50, 4), torch.randn(4, 6)
    strength = 0.1 * x.square().sum(0).mean()
    # the same as rows of a plain least-squares problem: √λ (W - W₀) = 0
    stacked = torch.cat([x, strength.sqrt() * torch.eye(6)]).double()
    targets = torch.cat([y, strength.sqrt() * weight.T]).double()
    expected = torch.linalg.lstsq(stacked, targets).solution.T
    torch.testing.assert_close(summed(x, y).fit(weight.double(), 0.1), expected, rtol=1e-5, atol=1e-6)


def test_errors_count_relative_to_the_size_of_their_token() -> None:
    torch.manual_seed(0)
    x, y, weight, size = torch.randn(50, 6), torch.randn(50, 4), torch.randn(4, 6), torch.rand(50) + 0.5
    relative = summed(x / size[:, None], y / size[:, None]).fit(weight, 0.1)
    torch.testing.assert_close(summed(x, y, size).fit(weight, 0.1), relative, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(relative, summed(x, y).fit(weight, 0.1), atol=1e-2)


def test_an_input_that_is_always_zero_keeps_its_weights() -> None:
    torch.manual_seed(0)
    x, y, weight = torch.randn(50, 6), torch.randn(50, 4), torch.randn(4, 6)
    x[:, 2] = 0
    fitted = summed(x, y).fit(weight, 1e-3)
    torch.testing.assert_close(fitted[:, 2], weight[:, 2])
    assert not torch.allclose(fitted, weight, atol=0.1)


def test_a_refit_without_tokens_changes_no_weight() -> None:
    weight = torch.randn(4, 6)
    torch.testing.assert_close(Gram.empty(6, 4, CPU).fit(weight, 1e-3), weight)


def test_a_change_of_the_inner_block_counts_by_what_it_changes_in_its_outputs() -> None:
    torch.manual_seed(0)
    x, y, weight = torch.randn(50, 6).double(), torch.randn(50, 4).double(), torch.randn(4, 6).double()
    inner = Inner(torch.tensor([0, 3]), torch.tensor([1, 2, 5]), 2.5)
    strength = 0.1 * x.square().sum(0).mean()
    inside = torch.zeros_like(x)
    inside[:, inner.columns] = x[:, inner.columns]
    for row in range(4):
        share = 2.5 if row in inner.rows else 0.0
        # rows of a plain least-squares problem: √λ (w - w₀) = 0, √α X' (w - w₀)' = 0
        stacked = torch.cat([x, strength.sqrt() * torch.eye(6), share**0.5 * inside])
        targets = torch.cat([y[:, row], strength.sqrt() * weight[row], share**0.5 * inside @ weight[row]])
        expected = torch.linalg.lstsq(stacked, targets[:, None]).solution[:, 0]
        torch.testing.assert_close(summed(x, y).fit(weight, 0.1, inner)[row], expected, rtol=1e-5, atol=1e-6)


def test_an_inner_block_of_large_weight_stays() -> None:
    torch.manual_seed(0)
    x, y, weight = torch.randn(50, 6), torch.randn(50, 4), torch.randn(4, 6)
    block = torch.tensor([0, 3]), torch.tensor([1, 2, 5])
    fitted = summed(x, y).fit(weight, 0.1, Inner(*block, 1e9))
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[torch.meshgrid(*block, indexing="ij")] = True
    torch.testing.assert_close(fitted[inside], weight[inside])
    assert (fitted[~inside] - weight[~inside]).abs().min() > 1e-3
