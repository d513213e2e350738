"""Rotary positions of a GGUF file as the `rope_parameters` of a config.json: export/positions.py, inverted."""

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
"""Tensors that stand for settings."""

_CLOSE = 2e-6  # relative; the factors of Llama 3.1's file are those of the formula to the last bit of float32
_KNOWN_BANDS = ((1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (1.0, 32.0))  # turns between which llama3's factors change


def rope_of(file: GgufFile, keys: Keys, head_dim: int, context: int, partial: bool) -> dict[str, Any]:
    """The rotary parameters.

    Args:
        file: The file.
        keys: Its keys; those of positions are taken.
        head_dim: Dimensions of a head.
        context: The longest text.
        partial: Whether the family turns heads in part where it is told to.

    Raises:
        ModelError: They are of a kind that transformers has not, or that cannot be told from the file.
    """
    dimensions = keys.whole("rope.dimension_count", head_dim)
    if dimensions > head_dim or (dimensions != head_dim and not partial):
        raise ModelError(
            f"{keys.where}: {keys.prefix}rope.dimension_count is {dimensions}, and a head has {head_dim} dimensions, "
            "which this family turns whole"
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
    """The scaling that one number tells, or longrope's two lists."""
    told = keys.number("rope.scaling.factor", 0.0) or keys.number("rope.scale_linear", 0.0)
    kind = keys.take("rope.scaling.type", "linear" if told else "none")  # as llama.cpp: a factor alone is linear
    trained = keys.whole("rope.scaling.original_context_length", context)
    attention = keys.number("rope.scaling.attn_factor", 1.0)
    keys.only("rope.scaling.yarn_log_multiplier", 0.0)
    keys.only("rope.scaling.yarn_ext_factor", 1.0, -1.0)
    keys.only("rope.scaling.yarn_attn_factor", 1.0)
    keys.only("rope.scaling.yarn_beta_fast", 32.0)
    keys.only("rope.scaling.yarn_beta_slow", 1.0)
    if LONG in factors or SHORT in factors:
        return _longrope(keys, factors, trained, attention)
    if kind == "none" or (kind == "linear" and told in (0.0, 1.0)):
        return {"rope_type": "default"}
    if told <= 0:
        raise ModelError(
            f"{keys.where}: positions are {kind!r:.40} without a factor ({keys.prefix}rope.scaling.factor)"
        )
    if kind == "linear":
        return {"rope_type": "linear", "factor": told}
    if kind != "yarn":
        raise ModelError(
            f"{keys.where}: {keys.prefix}rope.scaling.type is {kind!r:.40}; Prunus reads none, linear, yarn, and "
            f"longrope with {LONG} and {SHORT}"
        )
    rope = {"rope_type": "yarn", "factor": told, "original_max_position_embeddings": trained}
    if attention != 1.0:  # of what transformers and llama.cpp multiply queries and keys by, where nobody says
        rope["attention_factor"] = float(f"{attention * (1 + 0.1 * math.log(told)):.7g}")  # the file has float32
    return rope


def _longrope(keys: Keys, factors: dict[str, np.ndarray], trained: int, attention: float) -> dict[str, Any]:
    missing = next((name for name in (LONG, SHORT) if name not in factors), None)
    if missing is not None:
        raise ModelError(f"{keys.where}: positions are longrope's, and the tensor {missing} is missing")
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
            "for each pair that is turned"
        )
    return np.array(tensor.stored()).view(np.float32).reshape(-1)


def _llama3(factors: np.ndarray, theta: float, dimensions: int, context: int, keys: Keys) -> dict[str, Any]:
    """The four numbers of llama3's positions that give these factors: the usual ones first, else solved for.

    Raises:
        ModelError: None do.
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
        f"{keys.where}: {FREQUENCIES} is none that llama3's positions make (from {factors.min():g} to "
        f"{factors.max():g}); transformers has no other positions with a factor for each pair"
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
        original = round(-slope / offset) if offset < 0 else 0  # where one turn is share 0, and so low is 1
        if original > 0:
            yield factor, 1.0, float(1 + original / slope), original
