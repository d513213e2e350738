"""Phi-3, 3.5 and 4: queries, keys and values in one matrix, gate and up in one."""

from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import NAMED_EMBEDDINGS, NAMED_PRE_NORMS, PRE_NORMS, TO_HEAD
from prunus.models.families.rotary import Rotary

_NO_WINDOW = 0


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Read the sliding window, which llama.cpp ignores but the model was trained with, and the original context."""
    context = sizes["max_position_embeddings"]
    window = keys.whole("attention.sliding_window", _NO_WINDOW)
    return {
        "sliding_window": window if 0 < window < context else None,
        "original_max_position_embeddings": config["rope_parameters"].get("original_max_position_embeddings", context),
    }


FAMILY = replace(
    MISTRAL,
    name="Phi-3",
    model_type="phi3",
    class_name="Phi3ForCausalLM",
    models="Phi-3, 3.5, 4, 4-mini",
    about="q, k, v in one matrix, gate and up in one",
    layered={
        **PRE_NORMS,
        "self_attn.qkv_proj.weight": "(heads head_dim)+(kv_heads head_dim)+(kv_heads head_dim) hidden",
        "self_attn.o_proj.weight": "hidden (heads head_dim)",
        "mlp.gate_up_proj.weight": "mlp+mlp hidden",
        "mlp.down_proj.weight": "hidden mlp",
    },
    feeds={
        "input_layernorm": ("self_attn.qkv_proj",),
        "post_attention_layernorm": ("mlp.gate_up_proj",),
        **TO_HEAD,
    },
    rotary=Rotary(partial=True, trained=4096, by_width=True, renamed={"su": "longrope", "yarn": "longrope"}),
    epsilon=1e-5,
    window=None,
    gguf=Gguf(
        "phi3",
        {
            **NAMED_EMBEDDINGS,
            **NAMED_PRE_NORMS,
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        square=True,
        factors=True,
        read=_read,
    ),
)
