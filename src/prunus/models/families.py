"""The families that Prunus can cut, a table each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import ModelError, nearest
from prunus.models.axes import Family

LLAMA = Family(
    name="Llama",
    model_types=("llama",),
    layer="model.layers.{}.",
    shared={
        "model.embed_tokens.weight": "vocab hidden",
        "model.norm.weight": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "input_layernorm.weight": "hidden",
        "self_attn.q_proj.weight": "(heads head_dim) hidden",
        "self_attn.q_proj.bias": "(heads head_dim) if attention_bias",
        "self_attn.k_proj.weight": "(kv_heads head_dim) hidden",
        "self_attn.k_proj.bias": "(kv_heads head_dim) if attention_bias",
        "self_attn.v_proj.weight": "(kv_heads head_dim) hidden",
        "self_attn.v_proj.bias": "(kv_heads head_dim) if attention_bias",
        "self_attn.o_proj.weight": "hidden (heads head_dim)",
        "self_attn.o_proj.bias": "hidden if attention_bias",
        "post_attention_layernorm.weight": "hidden",
        "mlp.gate_proj.weight": "mlp hidden",
        "mlp.gate_proj.bias": "mlp if mlp_bias",
        "mlp.up_proj.weight": "mlp hidden",
        "mlp.up_proj.bias": "mlp if mlp_bias",
        "mlp.down_proj.weight": "hidden mlp",
        "mlp.down_proj.bias": "hidden if mlp_bias",
    },
    divisible=(("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")),
    flags={"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False},
)

FAMILIES = (LLAMA,)


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The table for a model's config.json.

    Args:
        config: The contents of config.json.
        where: The folder, for the message.

    Raises:
        ModelError: No table covers its `model_type`, or it needs code of its own.
    """
    model_type = str(config.get("model_type", ""))
    if config.get("auto_map"):
        raise ModelError(f"{where}: config.json asks for code of its own (`auto_map`), which Prunus never runs")
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES for name in family.model_types]
    raise ModelError(
        f"{where}: no axis table for model_type {model_type!r}{nearest(model_type, known)}; "
        f"there are: {', '.join(known)}"
    )
