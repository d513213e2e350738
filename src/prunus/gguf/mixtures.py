"""The type of each tensor of a file: llama.cpp's mixtures, and fallbacks for rows that do not fit a type's blocks.

The rules are those of llama.cpp's `llama_tensor_get_type` and `tensor_type_fallback` (src/llama-quant.cpp), so that
files equal those of its `llama-quantize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.llamacpp.ggml import BF16, BLOCKS, F16, F32, Q4_0, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, can_quantise

TYPES = {
    "gguf-f32": F32, "gguf-f16": F16, "gguf-bf16": BF16, "gguf-q8_0": Q8_0, "gguf-q6_k": Q6_K, "gguf-q5_k_m": Q5_K,
    "gguf-q4_k_m": Q4_K, "gguf-q4_0": Q4_0,
}  # fmt: skip
"""The main tensor type of each format."""

FILE_TYPES = {
    "gguf-f32": 0, "gguf-f16": 1, "gguf-bf16": 32, "gguf-q8_0": 7, "gguf-q6_k": 18, "gguf-q5_k_m": 17,
    "gguf-q4_k_m": 15, "gguf-q4_0": 2,
}  # fmt: skip
"""GGUF's number (`general.file_type`) of each format."""

FLOATS = (F32, F16, BF16)
QUANTISED = tuple(name for name, kind in TYPES.items() if kind not in FLOATS)
"""The formats with fewer than 16 bits per weight."""
_FLOAT32 = ("ffn_gate_inp", "position_embd", "shortconv.conv", "ssm_conv1d")
_FALLBACKS = {Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}
_MIXED = ("gguf-q4_k_m", "gguf-q5_k_m")
_EIGHT_EXPERTS = 8
_K_BLOCK = 256


@dataclass(frozen=True)
class Choice:
    """The type of a tensor, and the type that it would have if its rows were a multiple of the block (256 or 32)."""

    kind: int
    preferred: int


def choose(
    format_name: str, names: Sequence[str], columns: Sequence[int], dimensions: Sequence[int], layers: int, experts: int
) -> list[Choice]:
    """The type of every tensor of a file.

    Args:
        format_name: Such as `gguf-q4_k_m`.
        names: llama.cpp's names.
        columns: The row length of each tensor.
        dimensions: The number of dimensions of each tensor.
        layers: Number of layers of the model.
        experts: Number of experts of a layer; 0 if there are none.
    """
    tied = "output.weight" not in names
    choices = []
    for name, width, count in zip(names, columns, dimensions, strict=True):
        if not _may_shrink(name, count):
            choices.append(Choice(F32, F32))
            continue
        preferred = _preferred(format_name, name, width, layers, experts, tied)
        choices.append(Choice(_fitting(preferred, width), preferred))
    return choices


def needs_ggml(format_name: str) -> bool:
    """Whether a format needs ggml's own quantiser, which numpy cannot replace: that of K-quants."""
    return BLOCKS[TYPES[format_name]][0] == _K_BLOCK


def _may_shrink(name: str, dimensions: int) -> bool:
    """Whether a tensor may be quantised: all but vectors, and matrices that llama.cpp reads in float32."""
    return dimensions > 1 and name.endswith(".weight") and not any(part in name for part in _FLOAT32)


def _preferred(format_name: str, name: str, width: int, layers: int, experts: int, tied: bool) -> int:
    kind = TYPES[format_name]
    if kind in FLOATS:
        return kind
    part = name.split(".")[-2]
    if part == "output" or (part == "token_embd" and tied):
        fits = width % BLOCKS[kind][0] == 0
        return Q6_K if kind != Q8_0 and fits and can_quantise() else Q8_0
    return _mixed(kind, name, part, layers, experts) if format_name in _MIXED else kind


def _mixed(kind: int, name: str, part: str, layers: int, experts: int) -> int:
    """The type of a layer's matrix in a mixed format: more bits for the more sensitive matrices."""
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    if part == "attn_qkv":
        return Q6_K if kind == Q5_K else Q5_K
    if experts == _EIGHT_EXPERTS and part in ("attn_v", "attn_k", "attn_output"):
        return Q5_K if part == "attn_output" else Q8_0
    if part in ("attn_v", "ffn_down", "ffn_down_exps") and _more_bits(layer, layers):
        return Q6_K
    return kind


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(preferred: int, width: int) -> int:
    if width % BLOCKS[preferred][0] == 0:
        return preferred
    fallback = _FALLBACKS.get(preferred, F16)
    return fallback if width % BLOCKS[fallback][0] == 0 else F16


def bytes_of(format_name: str, parameters: int) -> int:
    """The approximate bytes of a number of parameters in a format, as if all tensors had its main type."""
    values, size = BLOCKS[TYPES[format_name]]
    return parameters * size // values
