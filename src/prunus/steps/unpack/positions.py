"""Rotary positions of a GGUF file as the `rope_parameters` of a config.json: the inverse of gguf/positions.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from prunus.errors import ModelError
from prunus.gguf.positions import llama3_factors
from prunus.llamacpp.reading import GgufFile
from prunus.steps.unpack.keys import Keys

FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
FACTORS = (FREQUENCIES, LONG, SHORT)
"""Tensors that encode settings."""

_CLOSE = 2e-6  # relative; the factors in Llama 3.1's file equal the formula's to the last bit of float32
_KNOWN_BANDS = ((1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (1.0, 32.0))  # (low_freq_factor, high_freq_factor) to try


def rope_of(file: GgufFile, keys: Keys, head_dim: int, context: int, partial: bool) -> dict[str, Any]:
    """The rotary parameters.

    Args:
        file: The file.
        keys: Its keys; those of positions are removed.
        head_dim: Dimensions of a head.
        context: The maximum context.
        partial: Whether the family supports rotating only a part of each head.

    Raises:
        ModelError: Transformers does not support them, or the file does not determine them.
    """
    dimensions = keys.whole("rope.dimension_count", head_dim)
    if dimensions > head_dim or (dimensions != head_dim and not partial):
        raise ModelError(
            f"{keys.where}: {keys.prefix}rope.dimension_count is {dimensions}, but this family rotates all "
            f"{head_dim} dimensions of a head"
        )
    rope: dict[str, Any] = {"rope_theta": keys.number("rope.freq_base", 1e4)}
    if dimensions != head_dim:
        rope["partial_rotary_factor"] = dimensions / head_dim
    factors = {name: _factors(file, name, dimensions // 2) for name in FACTORS if name in file.tensors}
    rope |= _scaling(keys, context, factors)
    if FREQUENCIES in factors and not (factors[FREQUENCIES] == 1).all():
        if rope["rope_type"] != "default":
            raise ModelError(f"{keys.where}: has {FREQUENCIES} and positions of type {rope['rope_type']}; expected one")
        rope |= _llama3(factors[FREQUENCIES], rope["rope_theta"], dimensions, context, keys)
    return rope


def _scaling(keys: Keys, context: int, factors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The scaling, by a single factor or by longrope's two lists."""
    factor = keys.number("rope.scaling.factor", 0.0) or keys.number("rope.scale_linear", 0.0)
    kind = keys.take(
        "rope.scaling.type", "linear" if factor else "none"
    )  # as in llama.cpp: a factor without a type is linear
    trained = keys.whole("rope.scaling.original_context_length", context)
    attention = keys.number("rope.scaling.attn_factor", 1.0)
    keys.only("rope.scaling.yarn_log_multiplier", 0.0)
    keys.only("rope.scaling.yarn_ext_factor", 1.0, -1.0)
    keys.only("rope.scaling.yarn_attn_factor", 1.0)
    keys.only("rope.scaling.yarn_beta_fast", 32.0)
    keys.only("rope.scaling.yarn_beta_slow", 1.0)
    if LONG in factors or SHORT in factors:
        return _longrope(keys, factors, trained, attention)
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {"rope_type": "default"}
    if factor <= 0:
        raise ModelError(
            f"{keys.where}: positions are {kind!r:.40} without a factor ({keys.prefix}rope.scaling.factor)"
        )
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ModelError(
            f"{keys.where}: {keys.prefix}rope.scaling.type is {kind!r:.40}; allowed: none, linear, yarn, and "
            f"longrope with {LONG} and {SHORT}"
        )
    rope = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    if attention != 1.0:  # relative to the default factor of queries and keys, in both
        rope["attention_factor"] = float(f"{attention * (1 + 0.1 * math.log(factor)):.7g}")  # the file stores float32
    return rope


def _longrope(keys: Keys, factors: dict[str, np.ndarray], trained: int, attention: float) -> dict[str, Any]:
    missing = next((name for name in (LONG, SHORT) if name not in factors), None)
    if missing is not None:
        raise ModelError(f"{keys.where}: positions are longrope, but the tensor {missing} is missing")
    return {
        "rope_type": "longrope",
        "short_factor": _shortest(factors[SHORT]),
        "long_factor": _shortest(factors[LONG]),
        "original_max_position_embeddings": trained,
        "attention_factor": attention,
    }


def _shortest(values: np.ndarray) -> list[float]:
    return [float(str(value)) for value in values]


def _factors(file: GgufFile, name: str, pairs: int) -> np.ndarray:
    tensor = file.tensors[name]
    if tensor.type_name != "F32" or tensor.shape != (pairs,):
        raise ModelError(
            f"{file.path}: {name} is {list(tensor.shape)} in {tensor.type_name}; expected {pairs} numbers in F32, one "
            "per rotary pair"
        )
    return np.array(tensor.stored()).view(np.float32).reshape(-1)


def _llama3(factors: np.ndarray, theta: float, dimensions: int, context: int, keys: Keys) -> dict[str, Any]:
    """The four parameters of llama3's positions that give these factors: common values are tried first, else solved.

    Raises:
        ModelError: No parameters give them.
    """
    for factor, low, high, original in _candidates(factors, theta, dimensions, context):
        rope = {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }  # fmt: skip
        made = llama3_factors({**rope, "rope_theta": theta}, dimensions)
        if np.allclose(made, factors, rtol=_CLOSE, atol=0):
            return rope
    raise ModelError(
        f"{keys.where}: {FREQUENCIES} (from {factors.min():g} to {factors.max():g}) cannot be made by llama3's "
        "positions; transformers has no other positions with a factor per pair"
    )


def _candidates(
    factors: np.ndarray, theta: float, dimensions: int, context: int
) -> Iterator[tuple[float, float, float, int]]:
    factor = float(str(factors.max()))
    lengths = [8192, *(2**i for i in range(4, 21)), context]
    for low, high in _KNOWN_BANDS:
        for original in lengths:
            yield factor, low, high, original
    # between the bands 1 / value = (1 - share) / factor + share, and the share is linear in the frequency
    share = (1.0 / factors.astype(np.float64) - 1 / factor) / (1 - 1 / factor) if factor > 1 else np.ones(1)
    between = (share > 0) & (share < 1)
    if between.sum() >= 2:
        turns = theta ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions) / (2 * math.pi)
        slope, offset = np.polyfit(turns[between], share[between], 1)
        original = (
            round(-slope / offset) if offset < 0 else 0
        )  # the length at which share is 0 for one turn, so low is 1
        if original > 0:
            yield factor, 1.0, float(1 + original / slope), original
