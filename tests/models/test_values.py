import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.models.values import from_float, is_finite, to_float

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
FLOATS = st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=20)


def torch_bytes(values: list[float], dtype: str) -> bytes:
    tensor = torch.tensor(values, dtype=torch.float64).to(TYPES[dtype])
    return tensor.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", TYPES)
@given(values=FLOATS)
def test_bytes_are_torchs_and_back_again(dtype: str, values: list[float]) -> None:
    expected = torch_bytes(values, dtype)
    assert (
        to_float(expected, dtype).tolist()
        == torch.tensor(values, dtype=torch.float64).to(TYPES[dtype]).double().tolist()
    )
    if dtype != "BF16":  # torch rounds float64 to bfloat16 by way of float32, as this does
        assert from_float(np.array(values), dtype) == expected
    assert from_float(to_float(expected, dtype), dtype) == expected


@given(values=FLOATS)
def test_bfloat16_is_rounded_as_torch_rounds_float32(values: list[float]) -> None:
    expected = torch.tensor(values, dtype=torch.float32).to(torch.bfloat16)
    assert (
        to_float(from_float(np.array(values, dtype=np.float32), "BF16"), "BF16").tolist() == expected.double().tolist()
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_located_anywhere(dtype: str, bad: float) -> None:
    values = np.linspace(-60000, 60000, 300_000)
    assert is_finite(torch_bytes(values.tolist(), dtype), dtype)
    for place in (0, 262_143, 262_144, 299_999):
        spoilt = values.copy()
        spoilt[place] = bad
        assert not is_finite(torch_bytes(spoilt.tolist(), dtype), dtype)


def test_whole_numbers_are_always_finite() -> None:
    assert is_finite(b"\xff" * 16, "I32")
