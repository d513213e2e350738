"""The numbers that a quantised file holds in place of weights, without writing the file.

Q4_0, Q5_0, Q5_1 and Q8_0 follow ggml's reference quantisers (ggml-quants.c, `quantize_row_*_ref`) operation by
operation, so that every number is the file's, bit for bit. K-quants and I-quants, whose scales are searched for, are
ggml's own.

R rows, C columns, G blocks of 32 values
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

from prunus.gguf.mixtures import FLOATS
from prunus.llamacpp import ggml

_BLOCK = 32
_PIECE = 1 << 16  # values that are rounded at once on a CPU, so that they stay in its cache


def rounded(values: torch.Tensor, kind: int) -> torch.Tensor:
    """What a tensor of the type `kind` holds: float32 [R, C] to float32 [R, C].

    Raises:
        KeyError: The type is neither a float nor one of the quantised types that files are written in.
    """
    if kind in K_QUANTS:
        return decoded(encoded(values, kind), kind, values.device)
    if kind in FLOATS or values.device.type != "cpu":
        return _ROUNDED[kind](values)
    return torch.cat([_ROUNDED[kind](piece) for piece in values.split(max(1, _PIECE // values.shape[1]))])


def encoded(values: torch.Tensor, kind: int) -> torch.Tensor:
    """The bytes of rows in a type of `K_QUANTS`, made by ggml on the CPU: float32 [R, C] to uint8 [R, row bytes]."""
    rows = values.detach().cpu().contiguous().numpy()
    return torch.from_numpy(_in_pieces(rows, lambda piece: ggml.quantise(piece, kind)))


def decoded(data: torch.Tensor, kind: int, device: torch.device) -> torch.Tensor:
    """The inverse of `encoded`, on a device."""
    return torch.from_numpy(_in_pieces(data.numpy(), lambda piece: ggml.dequantise(piece, kind))).to(device)


def _in_pieces(rows: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`function` of all rows, by several threads a few rows at a time; it releases the GIL."""
    size = max(1, _PIECE // rows.shape[1])
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    with ThreadPoolExecutor(ggml.workers()) as pool:
        return np.concatenate(list(pool.map(function, pieces)))


def _by_largest(values: torch.Tensor, levels: int) -> torch.Tensor:
    """Q4_0 (16 levels) and Q5_0 (32): the value of the largest size becomes the lowest level."""
    blocks, half = values.unflatten(-1, (-1, _BLOCK)), levels // 2
    scale = _largest(blocks) / -half
    places = _placed(blocks, _inverse(scale), half + 0.5).clamp_(max=levels - 1)
    return places.sub_(half).mul_(_in_half(scale)).flatten(-2)


def _largest(blocks: torch.Tensor) -> torch.Tensor:
    """The value of the largest size in each block, the first of several: [..., G, 32] to [..., G, 1]."""
    least, most = blocks.amin(dim=-1, keepdim=True), blocks.amax(dim=-1, keepdim=True)
    found = torch.where(most > -least, most, least)
    tied = (most == -least).squeeze(-1) & (most != 0).squeeze(-1)
    if tied.any():
        several = blocks[tied]
        found[tied] = several.gather(-1, several.abs().argmax(dim=-1, keepdim=True))
    return found


def _between(values: torch.Tensor) -> torch.Tensor:
    """Q5_1: 32 levels from the smallest value of a block to the largest."""
    blocks = values.unflatten(-1, (-1, _BLOCK))
    least, most = blocks.amin(dim=-1, keepdim=True), blocks.amax(dim=-1, keepdim=True)
    scale = (most - least) / 31
    places = _placed(blocks - least, _inverse(scale), 0.5)
    return places.mul_(_in_half(scale)).add_(_in_half(least)).flatten(-2)


def _placed(blocks: torch.Tensor, inverse: torch.Tensor, offset: float) -> torch.Tensor:
    """The levels of values, none below 0. One that is not finite, by a denormal scale, becomes 0, as in C on x86."""
    wide = torch.float64 if _is_fused() else torch.float32  # a product of two float32 numbers is exact in float64
    places = (blocks.to(wide) * inverse.to(wide)).add_(offset).float()
    return places.nan_to_num_(0, posinf=0, neginf=0).floor_()


@cache
def _is_fused() -> bool:
    """Whether the quantiser that writes files multiplies and adds with one rounding (FMA), as ggml's compiler may do.

    A value whose level depends on it tells. Without ggml, gguf's numpy writes files; in release 0.17 it rounds once.
    """
    block = np.zeros((1, _BLOCK), dtype=np.float32)
    block[0, :2] = -12, -8.25  # the second is level 3 after two roundings, and 2 after one
    if ggml.can_quantise():
        data = ggml.quantise(block, ggml.Q4_0)
    else:
        try:
            from gguf import GGMLQuantizationType, quants
        except ImportError:
            return False  # nothing writes files here
        data = quants.quantize(block, GGMLQuantizationType.Q4_0)
    return bool(data[0, 3] & 15 == 2)


def _in_8_bits(values: torch.Tensor) -> torch.Tensor:
    """Q8_0: 255 levels, symmetric around 0; halves are rounded away from it."""
    blocks = values.unflatten(-1, (-1, _BLOCK))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    places = (blocks * _inverse(scale)).nan_to_num_(0, posinf=0, neginf=0)
    sizes = places.abs()
    whole = sizes.floor()
    levels = sizes.sub_(whole).mul_(2).floor_().add_(whole).copysign_(places)
    return levels.mul_(_in_half(scale)).flatten(-2)


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """1 / scale, and 0 for 0."""
    return torch.where(scale == 0, scale, scale.reciprocal())


def _in_half(scale: torch.Tensor) -> torch.Tensor:
    """A scale as a block stores it, in float16."""
    return scale.half().float()


_ROUNDED: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {
    ggml.F32: lambda values: values,
    ggml.F16: _in_half,
    ggml.BF16: lambda values: values.bfloat16().float(),
    ggml.Q4_0: lambda values: _by_largest(values, 16),
    ggml.Q5_0: lambda values: _by_largest(values, 32),
    ggml.Q5_1: _between,
    ggml.Q8_0: _in_8_bits,
}
K_QUANTS = (
    ggml.Q2_K, ggml.Q3_K, ggml.Q4_K, ggml.Q5_K, ggml.Q6_K, ggml.IQ2_S, ggml.IQ3_XXS, ggml.IQ3_S, ggml.IQ4_NL,
    ggml.IQ4_XS,
)  # fmt: skip
"""The types that ggml makes on the CPU: K-quants and I-quants."""
