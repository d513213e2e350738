"""Conversion of values to a checkpoint's bytes; values that are not finite in its dtype are errors."""

from __future__ import annotations

import numpy as np

from prunus.errors import ModelError
from prunus.gguf.writer import in_half
from prunus.llamacpp import ggml
from prunus.llamacpp.parsing import GgufTensor

_HALVES = {"float16": ggml.F16, "bfloat16": ggml.BF16}
_EXPONENTS = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}


def narrowed(values: np.ndarray, dtype: str, source: GgufTensor) -> bytes:
    """Float32 values (or 16-bit values that already have the dtype) as bytes of a dtype, rounded to nearest.

    Raises:
        ModelError: A value is not finite, or not in that dtype; names the tensor.
    """
    if dtype == "float32":
        if not np.isfinite(values).all():
            raise ModelError(f"{source.file}: {source.name} has a value that is not finite")
        return values.tobytes()
    bits = values if values.dtype == np.uint16 else in_half(values, _HALVES[dtype]).view(np.uint16)
    top = _EXPONENTS[dtype]
    if ((bits & top) == top).any():  # infinity or NaN
        raise ModelError(
            f"{source.file}: {source.name} has a value that is not finite, or overflows {dtype}; try --dtype float32"
        )
    return bits.tobytes()
