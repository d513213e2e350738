"""What is kept of a distribution, against the distribution."""

import pytest
import torch

from prunus.steps.targets.choose import chances, drawn, top_k


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_likeliest_and_the_rest_are_all(temperature: float) -> None:
    logits = torch.randn(4, 30, dtype=torch.float64) * 3
    probabilities = (logits / temperature).softmax(-1)
    found = top_k(logits, 6, temperature)
    assert found.log_probabilities is not None
    torch.testing.assert_close(found.log_probabilities.exp().sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found.log_probabilities[:, :-1].exp(), probabilities.gather(-1, found.ids))
    assert bool((probabilities.scatter(-1, found.ids, 0).amax(-1) <= found.log_probabilities[:, 5].exp()).all())
    torch.testing.assert_close(found.mass, probabilities.gather(-1, found.ids).sum(-1))
    everything = top_k(logits, 100, temperature)
    assert everything.ids.shape == (4, 30)
    assert everything.log_probabilities is not None
    assert everything.log_probabilities[:, -1].tolist() == [-torch.inf] * 4


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 12)
    logits[0, [0, 11]] = -torch.inf
    count = 200_000
    found = drawn(logits, torch.from_numpy(chances(1, 2, 1, count)), 1.5)
    shares = torch.bincount(found.ids[0], minlength=12) / count
    torch.testing.assert_close(shares, (logits / 1.5).softmax(-1)[0], atol=5e-3, rtol=0)
    assert found.mass.item() == pytest.approx(1)


def test_no_chance_draws_what_cannot_be() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    edges = torch.tensor([[0.0, 0.4999, 0.5, 1 - 1e-17]], dtype=torch.float64)
    found = drawn(logits, edges, 1.0)
    assert found.ids.tolist() == [[1, 1, 3, 3]]
    assert drawn(logits, edges[:, :1], 1.0).mass.item() == 0.5
