"""Numbers as the bytes of a checkpoint; one that is not finite there is an error."""

from __future__ import annotations

import numpy as np

from prunus.errors import ModelError
from prunus.gguf.writer import in_half
from prunus.llamacpp import ggml
from prunus.llamacpp.parsing import GgufTensor

_HALVES = {"float16": ggml.F16, "bfloat16": ggml.BF16}
_EXPONENTS = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}


def narrowed(values: np.ndarray, dtype: str, source: GgufTensor) -> bytes:
    """Float32 values (or 16 bits that are of the type already) as bytes of a type, rounded to the nearest.

    Raises:
        ModelError: A value is not finite, or is not in that type; names the tensor.
    """
    if dtype == "float32":
        if not np.isfinite(values).all():
            raise ModelError(f"{source.file}: {source.name} has a value that is not finite")
        return values.tobytes()
    bits = values if values.dtype == np.uint16 else in_half(values, _HALVES[dtype]).view(np.uint16)
    top = _EXPONENTS[dtype]
    if ((bits & top) == top).any():  # infinity or none
        raise ModelError(
            f"{source.file}: {source.name} has a value that is not finite, or not in {dtype}; another type may hold "
            "it: --dtype float32"
        )
    return bits.tobytes()
