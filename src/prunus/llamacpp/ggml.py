"""llama.cpp's functions in the `xllamacpp` wheel, called by their C names: quantisation and conversion of floats.

The wheel exports all of ggml and llama.cpp on Linux and macOS (arm64). If a function is missing, numpy is used, and
K-quants, which numpy cannot make, are refused.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from pathlib import Path

import numpy as np

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, BF16 = 0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30
IQ3_XXS, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS = 18, 20, 21, 22, 23
"""ggml's type numbers."""

NAMES = {
    F32: "F32", F16: "F16", BF16: "BF16", Q4_0: "Q4_0", Q4_1: "Q4_1", Q5_0: "Q5_0", Q5_1: "Q5_1", Q8_0: "Q8_0",
    Q2_K: "Q2_K", Q3_K: "Q3_K", Q4_K: "Q4_K", Q5_K: "Q5_K", Q6_K: "Q6_K",
    IQ2_S: "IQ2_S", IQ3_XXS: "IQ3_XXS", IQ3_S: "IQ3_S", IQ4_NL: "IQ4_NL", IQ4_XS: "IQ4_XS",
}  # fmt: skip
BLOCKS = {
    F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q5_0: (32, 22), Q5_1: (32, 24),
    Q8_0: (32, 34), Q2_K: (256, 84), Q3_K: (256, 110), Q4_K: (256, 144), Q5_K: (256, 176), Q6_K: (256, 210),
    IQ2_S: (256, 82), IQ3_XXS: (256, 98), IQ3_S: (256, 110), IQ4_NL: (32, 18), IQ4_XS: (256, 136),
}  # fmt: skip
"""Values and bytes of a block of each type."""

_ROWS = {F16: "ggml_cpu_fp32_to_fp16", BF16: "ggml_cpu_fp32_to_bf16"}


def row_bytes(kind: int, columns: int) -> int:
    """Bytes of a row of `columns` values."""
    values, size = BLOCKS[kind]
    return columns // values * size


def workers() -> int:
    """Number of threads: OMP_NUM_THREADS, or the number of usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("OMP_NUM_THREADS") or cores)


@cache
def library() -> ctypes.CDLL | None:
    """The wheel's library, or None if it is not installed."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    files = [file for place in spec.submodule_search_locations for file in Path(place).glob("xllamacpp*.so")]
    return ctypes.CDLL(str(files[0])) if files else None


@cache
def can_quantise() -> bool:
    """Whether llama.cpp's quantiser is available."""
    loaded = library()
    return loaded is not None and hasattr(loaded, "ggml_quantize_chunk")


def quantise(values: np.ndarray, kind: int, importance: np.ndarray | None = None) -> np.ndarray:
    """Quantise float32 rows [N, C] to bytes [N, row bytes] by ggml_quantize_chunk. Releases the GIL.

    Args:
        values: The rows.
        kind: The type.
        importance: The weight of each column in the squared error that scales are searched for, [C] in float32; None
            for ggml's own weights.
    """
    function = _declared("ggml_quantize_chunk")
    rows, columns = values.shape
    out = np.empty((rows, row_bytes(kind, columns)), dtype=np.uint8)
    weights = None if importance is None else importance.ctypes.data
    function(kind, values.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    return out


def dequantise(data: np.ndarray, kind: int) -> np.ndarray:
    """The float32 rows [N, C] that quantised bytes [N, row bytes] hold, as ggml reads them. Releases the GIL."""
    rows, size = data.shape
    out = np.empty((rows, size // BLOCKS[kind][1] * BLOCKS[kind][0]), dtype=np.float32)
    _declared(_reader(kind))(np.ascontiguousarray(data).ctypes.data, out.ctypes.data, out.size)
    return out


def _reader(kind: int) -> str:
    """The function that reads a quantised type: `dequantize_row_q4_K`, `dequantize_row_iq4_xs`."""
    return "dequantize_row_" + NAMES[kind].lower().replace("_k", "_K")


def narrow(values: np.ndarray, kind: int) -> np.ndarray | None:
    """Float32 values as 16-bit floats, by processor instructions; None if the library is not available."""
    loaded = library()
    if loaded is None or not hasattr(loaded, _ROWS[kind]):
        return None
    out = np.empty(values.shape, dtype=np.uint16)
    _declared(_ROWS[kind])(values.ctypes.data, out.ctypes.data, values.size)
    return out


@cache
def _declared(name: str) -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    """A function of the library, with its argument types declared for ctypes."""
    function = getattr(library(), name)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    if name == "ggml_quantize_chunk":
        function.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
        function.restype = ctypes.c_size_t
    else:
        function.argtypes = [pointer, pointer, number]
        function.restype = None
    return function
