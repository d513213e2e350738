"""Phi-3, 3.5 and 4: queries, keys and values in one matrix, gate and up in one."""

from dataclasses import replace

from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import PRE_NORMS, TO_HEAD

FAMILY = replace(
    MISTRAL,
    name="Phi-3",
    model_type="phi3",
    class_name="Phi3ForCausalLM",
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
)
