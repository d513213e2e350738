"""Log-probabilities of tokens against whole logits in float64."""

import pytest
import torch
import torch.nn.functional as F

from prunus.models.head import Head
from prunus.training import head as heads
from prunus.training.log_probabilities import token_log_probs


def made(count: int = 37, width: int = 8, vocabulary: int = 50, bias: bool = True) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    given = [torch.randn(count, width), torch.randn(vocabulary, width), torch.randn(vocabulary)]
    tensors = [tensor.double().requires_grad_() for tensor in given[: 3 if bias else 2]]
    return *tensors, torch.randint(vocabulary, (count,))


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize(("bias", "scale", "cap"), [(False, 1.0, None), (True, 0.3, None), (True, 2.0, 5.0)])
def test_values_and_gradients_are_those_of_whole_logits(monkeypatch, chunk, bias, scale, cap) -> None:
    monkeypatch.setitem(heads.CHUNK, "cpu", chunk)
    monkeypatch.setattr(heads, "_BLOCK", 150)
    hidden, weight, *more, labels = made(bias=bias)
    factor = torch.randn(len(labels), dtype=torch.float64)
    b = more[0] if more else None
    logits = (F.linear(hidden, weight, b)) * scale
    logits = cap * torch.tanh(logits / cap) if cap is not None else logits
    wanted = F.log_softmax(logits, dim=-1).gather(-1, labels[:, None]).squeeze(-1)
    parameters = [hidden, weight, *more]
    gradients = torch.autograd.grad((wanted * factor).sum(), parameters)
    found = token_log_probs(hidden, Head(weight, b, scale, cap), labels)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(torch.autograd.grad((found * factor).sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_gradients_nothing_is_kept() -> None:
    hidden, weight, labels = made(bias=False)
    with torch.no_grad():
        assert token_log_probs(hidden, Head(weight), labels).grad_fn is None


def test_there_may_be_no_token() -> None:
    hidden, weight, labels = made(bias=False)
    found = token_log_probs(hidden[:0], Head(weight), labels[:0])
    found.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_bfloat16_is_near() -> None:
    hidden, weight, labels = made(bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = token_log_probs(hidden.float(), Head(weight.float()), labels)
    wanted = token_log_probs(hidden, Head(weight), labels)
    torch.testing.assert_close(found.double(), wanted, rtol=0.03, atol=0.1)
