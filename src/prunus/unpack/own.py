"""The settings that single families have: windows, caps, multipliers, and what llama.cpp takes for granted of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunus.errors import ModelError
from prunus.export.metadata import GEMMA2_CAPS
from prunus.export.tensors import query_scale
from prunus.unpack.keys import Keys

_PERIODS = {"gemma2": 2, "gemma3_text": 6}  # of layers, of which the last sees all; files of old have no pattern
_SLIDING_THETA = 1e4  # Gemma 3's, where a file names none
_NO_WINDOW = 0

Own = Callable[[Keys, dict[str, Any], dict[str, int]], dict[str, Any]]


def _gemma(keys: Keys, config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Windows, caps, and the scale of scores that llama.cpp takes for granted."""
    kind, layers = config["model_type"], sizes["num_hidden_layers"]
    pattern = keys.take("attention.sliding_window_pattern", _PERIODS[kind])
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        pattern = [(layer + 1) % pattern != 0 for layer in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ModelError(
            f"{keys.where}: {keys.prefix}attention.sliding_window_pattern is {pattern!r:.60}; expected a period or one "
            f"value for each of {layers} layers"
        )
    scale = query_scale(kind, layers, sizes["hidden_size"], sizes["num_attention_heads"], sizes["head_dim"])
    if scale != int(scale):
        raise ModelError(f"{keys.where}: queries divided by the root of {scale}; Gemma's config has whole numbers")
    found: dict[str, Any] = {
        "sliding_window": keys.whole("attention.sliding_window", 4096 if kind == "gemma2" else None),
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern],
        "query_pre_attn_scalar": int(scale),
    }
    full = config["rope_parameters"]
    theta = keys.number("rope.freq_base_swa", full["rope_theta"] if kind == "gemma2" else _SLIDING_THETA)
    if kind == "gemma2":
        if theta != full["rope_theta"]:
            raise ModelError(f"{keys.where}: {keys.prefix}rope.freq_base_swa is {theta:g}; Gemma 2 has one theta")
        caps = {key: keys.number(key, cap) for key, cap in GEMMA2_CAPS.items()}
        return found | caps
    sliding = {"rope_type": "default", "rope_theta": theta}
    return found | {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


def _granite(keys: Keys, config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Its multipliers; llama.cpp takes 0 for one that is not there."""
    scale = keys.number("attention.scale", 0.0) or sizes["head_dim"] ** -0.5
    return {
        "embedding_multiplier": keys.number("embedding_scale", 0.0) or 1.0,
        "residual_multiplier": keys.number("residual_scale", 0.0) or 1.0,
        "attention_multiplier": scale,
        "logits_scaling": keys.number("logit_scale", 0.0) or 1.0,
    }


def _phi3(keys: Keys, config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Its window, which llama.cpp leaves aside and the model was trained with, and the context that it grew from."""
    window = keys.whole("attention.sliding_window", _NO_WINDOW)
    found: dict[str, Any] = {"sliding_window": window if 0 < window < sizes["max_position_embeddings"] else None}
    if "original_max_position_embeddings" in config["rope_parameters"]:
        found["original_max_position_embeddings"] = config["rope_parameters"]["original_max_position_embeddings"]
    else:
        found["original_max_position_embeddings"] = sizes["max_position_embeddings"]
    return found


def _gpt_neox(keys: Keys, config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    rope = {"partial_rotary_factor": 1.0, **config["rope_parameters"]}  # left out it would be a quarter
    return {"use_parallel_residual": bool(keys.take("use_parallel_residual", True)), "rope_parameters": rope}


def _experts(keys: Keys, config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """What llama.cpp takes for granted of a family's experts, where a file says it too."""
    if "norm_topk_prob" in config:
        keys.only("expert_weights_norm", config["norm_topk_prob"])
    keys.only("expert_weights_scale", 0.0, 1.0)
    keys.only("interleave_moe_layer_step", 1)
    return {}


OWN: dict[str, Own] = {
    "gemma2": _gemma, "gemma3_text": _gemma, "granite": _granite, "phi3": _phi3, "gpt_neox": _gpt_neox,
    "mixtral": _experts, "qwen3_moe": _experts, "olmoe": _experts,
}  # fmt: skip
"""What each model type has beside what all have."""
