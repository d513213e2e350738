"""The head and the loss as one, against logits that exist as a whole."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prunus.models.head import Head, check_head, read_head
from prunus.training import head as rooms
from prunus.training.head import head_loss
from prunus.training.objectives import CrossEntropy, NextToken, next_tokens
from tests.families import SPECIAL, make_teacher
from tests.tiny import load, make_model


def plain(hidden: torch.Tensor, head: Head, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    logits = F.linear(hidden, head.weight, head.bias) * head.scale
    if head.cap is not None:
        logits = head.cap * torch.tanh(logits / head.cap)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses if weights is None else losses * weights).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("bias", "scale", "cap"), [(False, 1.0, None), (True, 0.3, None), (True, 1.7, 4.0)])
@pytest.mark.parametrize("chunk", [4, 7, 100])
def test_losses_and_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool, scale: float, cap: float | None, weighted: bool
) -> None:
    monkeypatch.setitem(rooms.CHUNK, "cpu", chunk)
    monkeypatch.setattr(rooms, "_BLOCK", 3 * 31)  # blocks of three rows
    torch.manual_seed(0)
    parts = [torch.randn(21, 5), torch.randn(31, 5), torch.randn(31) if bias else None]
    labels = torch.randint(31, (21,))
    labels[4] = -100
    weights = torch.rand(21, dtype=torch.float64) if weighted else None
    results = []
    for formula in ("lean", "plain"):
        hidden, weight, b = (None if part is None else part.double().requires_grad_() for part in parts)
        head = Head(weight, b, scale, cap)
        if formula == "lean":
            total = head_loss(hidden, head, NextToken(labels, weights))
        else:
            total = plain(hidden, head, labels, weights)
        (total * 0.5).backward()
        results.append([total.detach(), hidden.grad, weight.grad, *([b.grad] if b is not None else [])])
    for lean, whole in zip(*results, strict=True):
        torch.testing.assert_close(lean, whole, rtol=1e-10, atol=1e-10)


def test_nothing_that_counts_is_a_loss_of_0() -> None:
    hidden, weight = torch.randn(0, 5, requires_grad=True), torch.randn(31, 5, requires_grad=True)
    total = head_loss(hidden, Head(weight), NextToken(torch.zeros(0, dtype=torch.long), None))
    total.backward()
    assert total.item() == 0
    assert weight.grad is not None
    assert weight.grad.abs().max().item() == 0


def test_frozen_parts_get_no_gradient() -> None:
    hidden, weight = torch.randn(6, 5), torch.randn(31, 5, requires_grad=True)
    head_loss(hidden, Head(weight), NextToken(torch.arange(6), None)).backward()
    assert hidden.grad is None
    assert weight.grad is not None


def test_under_autocast_it_is_as_near_as_whole_logits_are() -> None:
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(40, 16), torch.randn(300, 16), torch.randint(300, (40,))
    exact = weight.double().requires_grad_()
    wanted = plain(hidden.double(), Head(exact), labels, None)
    wanted.backward()
    errors = []
    for lean in (True, False):
        leaf = weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            head = Head(leaf)
            total = head_loss(hidden, head, NextToken(labels, None)) if lean else plain(hidden, head, labels, None)
        total.backward()
        errors.append(((leaf.grad - exact.grad).norm() / exact.grad.norm()).item())
        assert total.item() == pytest.approx(wanted.item(), rel=1e-2)
    assert errors[0] < 1.5 * errors[1] + 1e-3


@pytest.mark.parametrize("model_type", SPECIAL)
def test_every_familys_loss_is_transformers_loss(tmp_path: Path, model_type: str) -> None:
    model = load(make_teacher(tmp_path / "model", model_type))
    rough = bool(getattr(model.config, "num_experts", getattr(model.config, "num_local_experts", 0)))
    model = model if rough else model.double()  # grouped products know no float64
    ids = torch.arange(2 * 12).reshape(2, 12) % 300
    wanted = F.cross_entropy(model(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    wanted.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    check_head(model)
    loss = CrossEntropy(model)(ids)
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(
                parameter.grad, expected[name], rtol=1e-5, atol=1e-5 if rough else 1e-7, msg=name
            )


def test_weights_of_mean_one_over_a_batch_are_its_weighted_mean(tmp_path: Path) -> None:
    model = load(make_model(tmp_path / "model"))
    objective = CrossEntropy(model)
    ids = torch.arange(4 * 10).reshape(4, 10) % 300
    counts = torch.zeros(4, 10)
    counts[0, 2:5] = counts[1, :9] = counts[3, 7] = 1
    weights = counts * (counts.numel() / counts.sum())
    with torch.no_grad():
        logits = model(ids).logits
        losses = F.cross_entropy(logits.transpose(1, 2), next_tokens(ids), reduction="none")
        wanted = (losses * counts).sum() / counts.sum()
        whole = objective(ids, weights)
        halves = (objective(ids[:2], weights[:2]) + objective(ids[2:], weights[2:])) / 2
    assert whole.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert halves.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_head_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    from prunus.errors import ModelError

    model = load(make_model(tmp_path / "model"))
    model.get_output_embeddings().register_forward_hook(lambda *call: call[-1] * 1.01)
    with pytest.raises(ModelError, match="its logits are not its hidden states times its LM head"):
        check_head(model)
    assert read_head(model).cap is None
