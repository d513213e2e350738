import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.inference.sample import SeededSampling, draws, sample


def kept(probabilities: list[float], top_p: float) -> set[int]:
    """The slow way to the likeliest tokens that together have `top_p`."""
    found, mass = set(), 0.0
    for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if mass >= top_p:
            break
        found.add(token)
        mass += probabilities[token]
    return found


@given(seed=st.integers(0, 99), temperature=st.sampled_from([0.3, 1.0, 2.0]), top_p=st.sampled_from([0.2, 0.7, 1.0]))
def test_tokens_come_as_often_as_they_are_likely(seed: int, temperature: float, top_p: float) -> None:
    logits = torch.tensor(np.random.default_rng(seed).normal(size=7)).float()
    count = 4000
    chance = (torch.arange(count) + 0.5) / count  # evenly spread, so that shares are exact to 1 / count
    drawn = sample(logits.expand(count, 7), chance, temperature, top_p)
    probabilities = torch.softmax(logits.double() / temperature, dim=0).tolist()
    stay = kept(probabilities, top_p)
    whole = sum(probabilities[token] for token in stay)
    expected = [probabilities[token] / whole if token in stay else 0.0 for token in range(7)]
    shares = torch.bincount(drawn, minlength=7).double() / count
    torch.testing.assert_close(shares, torch.tensor(expected).double(), atol=2 / count, rtol=0)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_the_ends_of_the_line_draw_what_is_possible(chance: float) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, 0.5, -torch.inf]])
    assert sample(logits, torch.tensor([chance]), 1.0, 1.0).item() == (1 if chance == 0 else 2)


def test_the_draws_of_a_prompt_do_not_depend_on_its_batch() -> None:
    together, alone = draws(5, [3, 9], 4), draws(5, [9], 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(draws(6, [9], 4), alone)


def test_greedy_decoding_takes_what_is_drawn() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    processor = SeededSampling(chances, start=3, temperature=1.0, top_p=0.9)
    for step in range(2):
        found = processor(torch.zeros(2, 3 + step), logits).argmax(dim=-1)
        assert torch.equal(found, sample(logits, chances[:, step], 1.0, 0.9))
