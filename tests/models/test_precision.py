"""What a processor can do, and the timing of a layer in both data types."""

import math

import pytest
import torch

from prunus.models.precision import Sizes, measure_gains, product_dtype


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


@pytest.mark.parametrize("sizes", [Sizes(24, 40, 6, 2, 4), Sizes(16, 48, 3, 3, 10), Sizes(12, 20, 1, 1, 32)])
def test_a_layer_of_any_sizes_is_timed_in_both_types_without_a_trace(sizes: Sizes) -> None:
    state = torch.random.get_rng_state()
    gains = measure_gains(sizes)
    assert 0 < gains.inference < math.inf
    assert 0 < gains.training < math.inf
    assert torch.equal(state, torch.random.get_rng_state())


def test_wide_models_are_timed_at_a_width_that_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.models.precision._WIDEST", 32)
    widths = set()
    real = torch.nn.functional.linear

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: None = None) -> torch.Tensor:
        widths.update(weight.shape)
        return real(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    measure_gains(Sizes(1_000_000, 4_000_000, 2, 1, 8))
    assert widths == {32, 16, 8}
