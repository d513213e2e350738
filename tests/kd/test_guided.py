"""The loss with a teacher, weights and the text's cross-entropy, compared with whole logits and autograd."""

import pytest
import torch
from torch.nn import functional as F

from prunus.kd.config import GuideConfig
from prunus.kd.divergences import LOSSES, divergence_of
from prunus.kd.guided import GuidedTokens, mean_loss
from prunus.models.head import Head
from prunus.training.head import CHUNK
from prunus.training.objectives import TEXT

TOKENS, WIDTH, VOCABULARY, ALL = 14, 4, 9, 20
"""Tokens with a weight, channels, vocabulary, and all tokens of the micro-batch."""


class Guided(GuidedTokens):
    """With a teacher whose logits are all known."""

    def __init__(self, config: GuideConfig, teacher: torch.Tensor, labels: torch.Tensor, weights) -> None:
        super().__init__(config, teacher, labels, weights)
        self.teacher, self.compare = teacher, divergence_of(config)

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        return self.compare(logits, self.teacher[tokens].clone())


def expected(config: GuideConfig, logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, weights):
    """Loss and terms of whole logits: the means written out."""
    given = torch.ones(TOKENS, dtype=logits.dtype) if weights is None else weights
    share = 1.0 if weights is None else given.sum() / ALL
    options = {name: getattr(config, name) for name in ("temperature", "beta")}
    formula = LOSSES[config.loss].formula
    named = {name: value for name, value in options.items() if name in formula.__code__.co_varnames}
    losses = formula(logits, teacher, **named)
    square = config.temperature**2 if "temperature" in named else 1.0
    text = F.cross_entropy(logits, labels, ignore_index=-100, reduction="none")
    mixed = losses + config.cross_entropy_weight * text
    terms = {config.loss: (losses * given).sum() / square / ALL}
    if config.cross_entropy_weight:
        terms[TEXT] = (text * given).sum() / given[labels >= 0].sum() * share
    return (mixed * given).sum() / given.sum() * share, terms


@pytest.mark.parametrize("weighted", [False, True], ids=["equal weights", "weights"])
@pytest.mark.parametrize("mixed", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "mse"])
def test_loss_terms_and_gradients_are_those_of_whole_logits(
    loss: str, mixed: float, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is read in several chunks, of several blocks of rows."""
    monkeypatch.setitem(CHUNK, "cpu", 6)
    monkeypatch.setattr("prunus.training.head._BLOCK", 3 * VOCABULARY)
    config = GuideConfig(loss=loss, cross_entropy_weight=mixed, **({} if loss == "mse" else {"temperature": 1.7}))
    torch.manual_seed(5)
    hidden, weight, teacher = (
        torch.randn(rows, columns, dtype=torch.float64)
        for rows, columns in ((TOKENS, WIDTH), (VOCABULARY, WIDTH), (TOKENS, VOCABULARY))
    )
    labels = torch.randint(VOCABULARY, (TOKENS,))
    labels[[3, 13]] = -100
    weights = torch.rand(TOKENS, dtype=torch.float64) if weighted else None
    one, two = ([part.clone().requires_grad_() for part in (hidden, weight)] for _ in range(2))
    loss_value, terms = mean_loss(one[0], Head(one[1], None, 1.0, None), Guided(config, teacher, labels, weights), ALL)
    reference, reference_terms = expected(config, two[0] @ two[1].T, teacher, labels, weights)
    loss_value.backward()
    reference.backward()
    torch.testing.assert_close(loss_value, reference)
    torch.testing.assert_close(terms, {name: value.detach() for name, value in reference_terms.items()})
    for part, other in zip(one, two, strict=True):
        torch.testing.assert_close(part.grad, other.grad)


def test_weights_of_zero_give_a_loss_of_zero() -> None:
    config = GuideConfig(cross_entropy_weight=0.5)
    teacher, labels = torch.randn(TOKENS, VOCABULARY), torch.zeros(TOKENS, dtype=torch.long)
    hidden, head = torch.randn(TOKENS, WIDTH, requires_grad=True), Head(torch.randn(VOCABULARY, WIDTH), None, 1.0, None)
    loss, terms = mean_loss(hidden, head, Guided(config, teacher, labels, torch.zeros(TOKENS)), ALL)
    loss.backward()
    assert loss == 0
    assert all(value == 0 for value in terms.values())
    assert not hidden.grad.any()
