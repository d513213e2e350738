"""Rotary positions in GGUF: theta, scaling, and factors of single frequencies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from prunus.errors import RecipeError
from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES
from prunus.models.positions import rope_parameters
from prunus.models.shape import Shape

Config = Mapping[str, Any]
KNOWN = ("default", "linear", "llama3", "yarn", "longrope")
BY_FACTORS = ("llama3", "longrope")
_ROUNDED = 256  # llama.cpp makes every context a multiple of this


def check_positions(config: Config, shape: Shape, where: str) -> None:
    """Refuse rotary positions that llama.cpp cannot represent.

    Args:
        config: The contents of config.json.
        shape: Its dimensions.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the type and the allowed ones.
    """
    rotary, there = shape.family.rotary, shape.family.gguf
    if rotary is None:
        return
    rope = rope_parameters(config, rotary)
    kind = rope["rope_type"]
    betas = float(rope.get("beta_fast") or 32), float(rope.get("beta_slow") or 1)
    if kind == "yarn" and betas != (32.0, 1.0):
        raise RecipeError(f"{where}: yarn with beta_fast or beta_slow set; llama.cpp supports only 32 and 1")
    if kind not in KNOWN:
        raise RecipeError(f"{where}: rotary positions are {kind!r}; allowed: {', '.join(KNOWN)}")
    if kind in BY_FACTORS and not _reads_factors(shape.family):
        reading = ", ".join(family.name for family in FAMILIES.values() if _reads_factors(family))
        raise RecipeError(
            f"{where}: rotary positions are {kind!r}, but llama.cpp reads their factors only for {reading}, not "
            f"for {shape.family.name}. What works: the plain folder"
        )
    if rope["partial_rotary_factor"] != 1.0 and there is not None and there.pairs:
        raise RecipeError(
            f"{where}: only a part of each head is rotated, but llama.cpp's {there.architecture} rotates all of it"
        )
    if kind == "longrope":
        _check_longrope(config, rope, rotary_dimensions(rope, shape) // 2, where)


def _reads_factors(family: Family) -> bool:
    return family.gguf is not None and family.gguf.factors


def _check_longrope(config: Config, rope: Config, pairs: int, where: str) -> None:
    for name in ("short_factor", "long_factor"):
        if len(rope.get(name) or ()) != pairs:
            raise RecipeError(
                f"{where}: {name} has {len(rope.get(name) or ())} numbers, expected {pairs}, one per rotary pair"
            )
    trained = trained_context(config, rope)
    if trained % _ROUNDED:
        raise RecipeError(
            f"{where}: original_max_position_embeddings is {trained}; llama.cpp rounds contexts up to a multiple of "
            f"{_ROUNDED}, so it would use long_factor too early. What works: a multiple of {_ROUNDED}, or the folder"
        )


def rotary_dimensions(rope: Config, shape: Shape) -> int:
    """The number of dimensions of a head that are rotated."""
    return int(shape.head_dim * rope["partial_rotary_factor"])


def rope_keys(config: Config, shape: Shape) -> dict[str, Any]:
    """The file's keys on rotary positions, named without the architecture's prefix; empty without rotary positions."""
    if shape.family.rotary is None:
        return {}
    rope = rope_parameters(config, shape.family.rotary)
    keys: dict[str, Any] = {
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": rotary_dimensions(rope, shape),
    }
    kind, trained = rope["rope_type"], trained_context(config, rope)
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        usual = _yarn_scale(rope["factor"], 1.0)
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": trained,
            "rope.scaling.attn_factor": _yarn_attention(rope) / usual,
        }
    if kind == "longrope":
        keys |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": trained,
            "rope.scaling.attn_factor": _long_attention(rope, shape.max_position_embeddings / trained, trained),
        }
    return keys


def frequency_factors(config: Config, shape: Shape) -> dict[str, np.ndarray]:
    """The divisor of each frequency, as tensors of the file; empty if a single number is enough."""
    if shape.family.rotary is None:
        return {}
    rope = rope_parameters(config, shape.family.rotary)
    if rope["rope_type"] == "llama3":
        return {"rope_freqs.weight": llama3_factors(rope, rotary_dimensions(rope, shape))}
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{name}.weight": np.array(rope[f"{name}_factor"], dtype=np.float32)
            for name in ("long", "short")
        }
    return {}


def llama3_factors(rope: Config, dimensions: int) -> np.ndarray:
    """Llama 3.1's factors: 1 for fast pairs, `factor` for slow ones, interpolated (arXiv 2407.21783, section 3.2).

    The same as transformers' `_compute_llama3_parameters`.
    """
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    frequencies = float(rope["rope_theta"]) ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
    turns = float(rope["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1 - share) / factor + share)).astype(np.float32)


def trained_context(config: Config, rope: Config) -> int:
    """The model's training context before it was extended; as in transformers, the config's top level comes first."""
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    return int(original or config["max_position_embeddings"])


def _yarn_attention(rope: Config) -> float:
    """The factor of queries and keys, as in transformers' `_compute_yarn_parameters`."""
    if rope.get("attention_factor"):
        return float(rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return _yarn_scale(rope["factor"], rope["mscale"]) / _yarn_scale(rope["factor"], rope["mscale_all_dim"])
    return _yarn_scale(rope["factor"], 1.0)


def _yarn_scale(factor: float, scale: float) -> float:
    """0.1 s log f + 1, the factor of queries and keys in YaRN (arXiv 2309.00071, equation 15), by default in both."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _long_attention(rope: Config, scale: float, trained: int) -> float:
    if rope.get("attention_factor"):
        return float(rope["attention_factor"])
    scale = float(rope.get("factor") or scale)
    return math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1 else 1.0
