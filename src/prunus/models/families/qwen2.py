"""Qwen2 and 2.5: biases of queries, keys and values; later layers may use a sliding window."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf
from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import NAMED_USUAL


def _sliding_from(layer: int, config: Mapping[str, Any]) -> str:
    """Layers from max_window_layers on slide, if sliding is enabled."""
    on = config.get("use_sliding_window", False) and config.get("sliding_window") is not None
    first = config.get("max_window_layers")
    return "sliding_attention" if on and layer >= (28 if first is None else first) else "full_attention"


FAMILY = replace(
    MISTRAL,
    name="Qwen2",
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    models="Qwen2, Qwen2.5",
    about="biases on q, k, v",
    layered={
        **MISTRAL.layered,
        "self_attn.q_proj.bias": "(heads head_dim)",
        "self_attn.k_proj.bias": "(kv_heads head_dim)",
        "self_attn.v_proj.bias": "(kv_heads head_dim)",
    },
    lists={"layer_types": _sliding_from},
    slides=False,
    gguf=Gguf("qwen2", NAMED_USUAL, square=True),
)
