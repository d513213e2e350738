"""Symmetric products against plain ones."""

import pytest
import torch

from prunus.products import times_transpose


@pytest.mark.parametrize("shape", [(1, 3), (399, 7), (403, 5), (500, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_product_with_the_transpose(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    product = times_transpose(matrix)
    assert product.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(product.double(), matrix.double() @ matrix.double().T, rtol=1e-2, atol=tolerance)
    assert torch.equal(product, product.T)


def test_views_are_read_and_not_changed() -> None:
    whole = torch.randn(40, 410, generator=torch.Generator().manual_seed(0))
    before = whole.clone()
    torch.testing.assert_close(times_transpose(whole.T), whole.T @ whole)
    assert torch.equal(whole, before)
