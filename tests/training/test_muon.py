"""Muon's step: torch's own in bfloat16, and the polynomial of the singular values in any type."""

import pytest
import torch

from prunus.training.muon import Muon, orthogonal
from prunus.training.precision import product_dtype


@pytest.mark.parametrize("shape", [(7, 31), (31, 7), (16, 16), (1, 5)])
@pytest.mark.parametrize(("products", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
def test_singular_values_go_through_the_polynomial(
    shape: tuple[int, int], products: torch.dtype, tolerance: float
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    result = orthogonal(matrix, products)
    assert result.dtype == products
    torch.testing.assert_close(result.double(), u @ torch.diag(s) @ v, rtol=0, atol=tolerance)


def test_in_bfloat16_a_step_is_torchs() -> None:
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


@pytest.mark.parametrize(
    ("able", "products"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx2": True, "amx_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_products_are_in_bfloat16_where_the_processor_has_it(
    able: dict[str, bool], products: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert product_dtype(torch.device("cpu")) == products
    assert product_dtype(torch.device("cuda")) == torch.bfloat16


def test_a_torch_that_cannot_tell_multiplies_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert product_dtype(torch.device("cpu")) == torch.float32
