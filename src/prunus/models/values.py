"""Conversion of tensor bytes to numbers and back, without torch.

numpy has no bfloat16; its bits are the upper half of a float32's.
"""

from __future__ import annotations

import numpy as np

_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
"""For each floating dtype, an integer type of its width, and the bits that are all set only in infinities and NaNs."""

_CACHED = 1 << 18  # values checked at a time, so that they stay in the processor's cache


def to_float(data: bytes | memoryview, dtype: str) -> np.ndarray:
    """The values of a floating tensor's bytes, in float64."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(data, _FLOATS[dtype]).astype(np.float64)


def from_float(values: np.ndarray, dtype: str) -> bytes:
    """The bytes of `values` in a floating dtype, rounded to nearest, ties to even."""
    if dtype != "BF16":
        return values.astype(_FLOATS[dtype]).tobytes()
    bits = values.astype("<f4").view("<u4")
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2").tobytes()


def is_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Whether a tensor's bytes hold neither NaN nor infinity; true for dtypes without them."""
    if dtype not in _EXPONENTS:
        return True
    integer, mask = _EXPONENTS[dtype]
    values = np.frombuffer(data, integer)
    masked = np.empty(min(_CACHED, len(values)), dtype=integer)
    for start in range(0, len(values), _CACHED):
        part = values[start : start + _CACHED]
        if np.bitwise_and(part, np.array(mask, integer), out=masked[: len(part)]).max() == mask:
            return False
    return True
