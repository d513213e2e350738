"""The type of each tensor of a file: llama.cpp's mixtures, and fallbacks for rows that do not fit a type's blocks.

The rules are those of llama.cpp's `llama_tensor_get_type_impl` and `tensor_type_fallback` (src/llama-quant.cpp at
007dbbf3), so that files equal those of its `llama-quantize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.llamacpp.ggml import (
    BF16,
    BLOCKS,
    F16,
    F32,
    IQ2_S,
    IQ3_S,
    IQ3_XXS,
    IQ4_NL,
    IQ4_XS,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    can_quantise,
)
from prunus.models.shape import Shape

TYPES = {
    "gguf-f32": F32, "gguf-f16": F16, "gguf-bf16": BF16, "gguf-q8_0": Q8_0, "gguf-q6_k": Q6_K, "gguf-q5_k_m": Q5_K,
    "gguf-q4_k_m": Q4_K, "gguf-q4_0": Q4_0, "gguf-iq4_nl": IQ4_NL, "gguf-iq4_xs": IQ4_XS, "gguf-q3_k_m": Q3_K,
    "gguf-iq3_m": IQ3_S, "gguf-iq3_xs": IQ3_S, "gguf-iq3_xxs": IQ3_XXS, "gguf-q2_k": Q2_K, "gguf-iq2_m": IQ2_S,
}  # fmt: skip
"""The main tensor type of each format."""

FILE_TYPES = {
    "gguf-f32": 0, "gguf-f16": 1, "gguf-bf16": 32, "gguf-q8_0": 7, "gguf-q6_k": 18, "gguf-q5_k_m": 17,
    "gguf-q4_k_m": 15, "gguf-q4_0": 2, "gguf-iq4_nl": 25, "gguf-iq4_xs": 30, "gguf-q3_k_m": 12, "gguf-iq3_m": 27,
    "gguf-iq3_xs": 22, "gguf-iq3_xxs": 23, "gguf-q2_k": 10, "gguf-iq2_m": 29,
}  # fmt: skip
"""GGUF's number (`general.file_type`) of each format."""

FLOATS = (F32, F16, BF16)
NEED_MATRIX = ("gguf-iq3_xs", "gguf-iq3_xxs", "gguf-iq2_m")
"""The formats that llama.cpp writes only with an importance matrix."""
IGNORE_MATRIX = ("gguf-f32", "gguf-f16", "gguf-bf16", "gguf-q8_0")
"""The formats that an importance matrix does not change."""
QUANTISED = tuple(name for name, kind in TYPES.items() if kind not in FLOATS and name not in NEED_MATRIX)
"""The formats with fewer than 16 bits per weight that need no importance matrix."""
_BY_NUMPY = (*FLOATS, Q8_0, Q4_0)
_FALLBACKS = {
    Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0, Q2_K: Q4_0, Q3_K: Q4_0,
    IQ2_S: IQ4_NL, IQ3_XXS: IQ4_NL, IQ3_S: IQ4_NL, IQ4_XS: IQ4_NL,
}  # fmt: skip
_EIGHT_EXPERTS = 8
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
_FEW_BITS = ("gguf-iq2_m", "gguf-iq3_xxs")
_NOT_QUANTISED = ("_norm.weight", "ffn_gate_inp.weight", "position_embd", "ssm_conv1d", "shortconv.conv.weight")


@dataclass(frozen=True)
class Choice:
    """The type of a tensor, and the type that it would have if its rows were a multiple of the block (256 or 32)."""

    kind: int
    preferred: int


@dataclass(frozen=True)
class _Layer:
    """A layer's matrix.

    Attributes:
        part: Its name, such as `attn_v`; `ffn_down` also of experts.
        number: Its number among the matrices of all layers that the same rule counts.
        count: How many there are.
    """

    part: str
    number: int
    count: int

    def is_before(self, share: int) -> bool:
        """Whether it is in the first of `share` equal parts."""
        return self.number < self.count // share

    def is_last_eighth(self) -> bool:
        """Whether it is in the last eighth."""
        return self.number >= 7 * self.count // 8

    def has_more_bits(self) -> bool:
        """Whether it is in the first or last eighth, or every third between."""
        eighth = self.count // 8
        return self.is_before(8) or self.is_last_eighth() or (self.number - eighth) % 3 == 2


def choose(
    format_name: str,
    names: Sequence[str],
    columns: Sequence[int],
    dimensions: Sequence[int],
    shape: Shape,
    weighted: bool = False,
) -> list[Choice]:
    """The type of every tensor of a file.

    Args:
        format_name: Such as `gguf-q4_k_m`.
        names: llama.cpp's names, ordered by layer.
        columns: The row length of each tensor.
        dimensions: The number of dimensions of each tensor.
        shape: The model's shape.
        weighted: Whether there is an importance matrix.
    """
    tied = "output.weight" not in names
    values = [name for name in names if name.endswith(".weight") and name.split(".")[-2] in _VALUES]
    choices = []
    for name, width, count in zip(names, columns, dimensions, strict=True):
        if not may_shrink(name, count):
            choices.append(Choice(F32, F32))
            continue
        preferred = kind = TYPES[format_name]
        part = name.split(".")[-2]
        if kind in FLOATS:
            pass
        elif part == "output" or (part == "token_embd" and tied):
            preferred = _of_head(format_name, width, shape)
        elif part == "token_embd":
            preferred = IQ3_S if format_name in _FEW_BITS else kind
        elif name.startswith("blk."):
            layer = _layer(name, part, values, shape)
            preferred = _RULES.get(format_name, _same)(kind, layer, shape, weighted)
            preferred = _of_eight_experts(format_name, preferred, layer, shape)
        choices.append(Choice(_fitting(preferred, width), preferred))
    return choices


def needs_ggml(format_name: str) -> bool:
    """Whether a format needs ggml's own quantiser, which numpy cannot replace: that of K-quants and I-quants."""
    return TYPES[format_name] not in _BY_NUMPY


def may_shrink(name: str, dimensions: int) -> bool:
    """Whether a tensor may be quantised: all but vectors, norms, routers, convolutions and learned positions."""
    return dimensions > 1 and name.endswith(".weight") and not any(part in name for part in _NOT_QUANTISED)


def _of_head(format_name: str, width: int, shape: Shape) -> int:
    """The type of the LM head, and of an embedding that is also the head."""
    kind = TYPES[format_name]
    if kind == Q8_0 or _is_apart(shape) or width % BLOCKS[kind][0] or not can_quantise():
        return Q8_0
    return Q5_K if format_name in _FEW_BITS else Q6_K


def _layer(name: str, part: str, values: Sequence[str], shape: Shape) -> _Layer:
    if part in _VALUES:
        return _Layer(part, values.index(name), len(values))
    kinds = ("ffn_down", "ffn_gate", "ffn_up")
    part = next((kind for kind in kinds if part.startswith(kind)), part)
    return _Layer(part, int(name.split(".")[1]), shape.num_hidden_layers)


def _groups(shape: Shape) -> int:
    """Query heads of a KV head."""
    return shape.num_attention_heads // shape.num_key_value_heads


def _is_apart(shape: Shape) -> bool:
    """Whether llama.cpp's mixtures treat the family apart; see `Gguf`."""
    return shape.family.gguf is not None and shape.family.gguf.apart


def _is_output(layer: _Layer, shape: Shape) -> bool:
    """Whether it is an output projection of attention that has more bits than other matrices."""
    return layer.part == "attn_output" and not _is_apart(shape)


def _same(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    return kind


def _q4_0(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    return Q4_1 if weighted and layer.part == "ffn_down" and layer.is_before(8) else kind


def _q4_k_m(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    """More bits for the more sensitive matrices."""
    if layer.part == "ffn_down" and _is_apart(shape):
        return Q6_K if layer.is_before(16) else Q5_K if layer.has_more_bits() else kind
    return _q5_k_m(kind, layer, shape, weighted)


def _q5_k_m(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    return Q6_K if layer.part in (*_VALUES, "ffn_down") and layer.has_more_bits() else kind


def _q3_k_m(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES:
        return Q5_K if layer.number < 2 else Q4_K
    if layer.part == "ffn_down":
        more = not _is_apart(shape) or layer.has_more_bits()
        return Q5_K if layer.is_before(16) else Q4_K if more else kind
    return Q4_K if _is_output(layer, shape) else kind


def _q2_k(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES:
        return Q4_K if _groups(shape) >= 4 else Q3_K
    return Q3_K if layer.part == "ffn_down" or _is_output(layer, shape) else kind


def _iq4(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES and _groups(shape) >= 4:
        return Q5_K
    return Q5_K if layer.part == "ffn_down" and layer.is_before(8) and not weighted else kind


def _iq3_m(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES or _is_output(layer, shape):
        return Q4_K
    more = layer.is_before(8) or (shape.num_experts == _EIGHT_EXPERTS and layer.has_more_bits())
    return Q4_K if layer.part == "ffn_down" and more else kind


def _iq3_xs(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES:
        return Q4_K if _groups(shape) >= 4 else kind
    inner = layer.part in ("ffn_gate", "ffn_up") and not layer.is_before(8) and not layer.is_last_eighth()
    return IQ3_XXS if inner or layer.part in ("attn_q", "attn_k") else kind


def _iq3_xxs(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES:
        return Q4_K if _groups(shape) >= 4 else kind
    if layer.part in ("attn_q", "attn_k"):
        return IQ2_S
    return IQ3_S if _is_output(layer, shape) else kind


def _iq2_m(kind: int, layer: _Layer, shape: Shape, weighted: bool) -> int:
    if layer.part in _VALUES:
        return Q4_K if _groups(shape) >= 4 or shape.num_experts >= 4 else IQ3_S
    first = layer.part == "ffn_down" and layer.is_before(8)
    return IQ3_S if first or layer.part == "attn_output" else kind


_RULES = {
    "gguf-q4_0": _q4_0, "gguf-q4_k_m": _q4_k_m, "gguf-q5_k_m": _q5_k_m, "gguf-q3_k_m": _q3_k_m, "gguf-q2_k": _q2_k,
    "gguf-iq4_nl": _iq4, "gguf-iq4_xs": _iq4, "gguf-iq3_m": _iq3_m, "gguf-iq3_xs": _iq3_xs, "gguf-iq3_xxs": _iq3_xxs,
    "gguf-iq2_m": _iq2_m,
}  # fmt: skip


def _of_eight_experts(format_name: str, kind: int, layer: _Layer, shape: Shape) -> int:
    """With eight experts, the small matrices of attention have more bits in every format."""
    if shape.num_experts != _EIGHT_EXPERTS:
        return kind
    if format_name == "gguf-iq2_m":
        return {"attn_k": Q4_K, "attn_output": Q5_K}.get(layer.part, kind)
    if layer.part in (*_VALUES, "attn_k"):
        return Q8_0
    if layer.part == "attn_output" and format_name not in ("gguf-q8_0", "gguf-q6_k", "gguf-q5_k_m", "gguf-q4_0"):
        return Q5_K
    return kind


def _fitting(preferred: int, width: int) -> int:
    if width % BLOCKS[preferred][0] == 0:
        return preferred
    fallback = _FALLBACKS.get(preferred, F16)
    return fallback if width % BLOCKS[fallback][0] == 0 else F16


def bytes_of(format_name: str, parameters: int) -> int:
    """The approximate bytes of a number of parameters in a format, as if all tensors had its main type."""
    values, size = BLOCKS[TYPES[format_name]]
    return parameters * size // values
