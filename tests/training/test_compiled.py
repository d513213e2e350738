"""Losses as machine code of their own: the same figures, and none of it where it does not pay or work."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._inductor import cpp_builder

from prunus.console import Console
from prunus.errors import TrainingError
from prunus.kd import kernels
from prunus.runtime import Runtime
from prunus.training.compiled import MIN_LOGITS, compiled

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


def has_compiler() -> bool:
    try:
        return bool(cpp_builder.get_cpp_compiler())
    except Exception:  # of many kinds
        return False


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")
@pytest.mark.parametrize(
    "loss",
    [
        partial(kernels.forward_kl_rows, temperature=2.0),
        kernels.reverse_kl_rows,
        partial(kernels.jensen_shannon_rows, beta=0.3),
        kernels.total_variation_rows,
    ],
    ids=["forward KL", "reverse KL", "Jensen-Shannon", "total variation"],
)
@torch.no_grad()
def test_results_are_those_of_float64(loss):
    vocabulary = 515
    fast = compiled(loss, vocabulary, 0, Runtime(compile=True), CPU, QUIET)
    assert fast is not loss
    for count in (1, 2, 7):
        student, teacher = torch.randn(2, count, vocabulary) * 3
        exact, known = student.double(), teacher.double()
        losses, wanted = fast(student, teacher), loss(exact, known)
        torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(student.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "count", "device"),
    [(False, MIN_LOGITS, "cpu"), ("auto", MIN_LOGITS - 1, "cpu"), ("auto", MIN_LOGITS, "cuda")],
    ids=["not asked for", "too few", "a GPU"],
)
def test_a_loss_is_not_compiled(asked, count, device):
    loss = kernels.forward_kl_rows
    assert compiled(loss, 8, count, Runtime(compile=asked), torch.device(device), QUIET) is loss


def test_where_it_does_not_work(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", lambda rows: broken)
    loss = kernels.forward_kl_rows
    assert compiled(loss, 8, MIN_LOGITS, Runtime(), CPU, Console()) is loss
    assert "not compiled, which would halve its time: no compiler found" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="runtime.compile: true does not work here: no compiler found"):
        compiled(loss, 8, 0, Runtime(compile=True), CPU, QUIET)
