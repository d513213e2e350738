"""Lines that the tables of several families share."""

from __future__ import annotations

LAYER = "model.layers.{}."
EMBEDDINGS = {
    "model.embed_tokens.weight": "vocab hidden",
    "model.norm.weight": "hidden",
    "lm_head.weight": "vocab hidden if not tie_word_embeddings",
}
ATTENTION = {
    "self_attn.q_proj.weight": "(heads head_dim) hidden",
    "self_attn.k_proj.weight": "(kv_heads head_dim) hidden",
    "self_attn.v_proj.weight": "(kv_heads head_dim) hidden",
    "self_attn.o_proj.weight": "hidden (heads head_dim)",
}
ATTENTION_BIAS = {
    "self_attn.q_proj.bias": "(heads head_dim) if attention_bias",
    "self_attn.k_proj.bias": "(kv_heads head_dim) if attention_bias",
    "self_attn.v_proj.bias": "(kv_heads head_dim) if attention_bias",
    "self_attn.o_proj.bias": "hidden if attention_bias",
}
GATED_MLP = {
    "mlp.gate_proj.weight": "mlp hidden",
    "mlp.up_proj.weight": "mlp hidden",
    "mlp.down_proj.weight": "hidden mlp",
}
MLP_BIAS = {
    "mlp.gate_proj.bias": "mlp if mlp_bias",
    "mlp.up_proj.bias": "mlp if mlp_bias",
    "mlp.down_proj.bias": "hidden if mlp_bias",
}
EXPERTS = {
    "mlp.gate.weight": "experts hidden",
    "mlp.experts.{experts}.gate_proj.weight": "mlp hidden",
    "mlp.experts.{experts}.up_proj.weight": "mlp hidden",
    "mlp.experts.{experts}.down_proj.weight": "hidden mlp",
}
PRE_NORMS = {"input_layernorm.weight": "hidden", "post_attention_layernorm.weight": "hidden"}
POST_NORMS = {"post_attention_layernorm.weight": "hidden", "post_feedforward_layernorm.weight": "hidden"}
HEAD_NORMS = {"self_attn.q_norm.weight": "head_dim", "self_attn.k_norm.weight": "head_dim"}
WIDE_HEAD_NORMS = {
    "self_attn.q_norm.weight": "(heads head_dim)",
    "self_attn.k_norm.weight": "(kv_heads head_dim)",
}
TO_ATTENTION = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}
TO_HEAD = {"model.norm": ("lm_head",)}
FEEDS = {**TO_ATTENTION, "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"), **TO_HEAD}
FEEDS_EXPERTS = {
    **TO_ATTENTION,
    "post_attention_layernorm": (
        "mlp.gate",
        "mlp.experts.{experts}.gate_proj",
        "mlp.experts.{experts}.up_proj",
    ),
    **TO_HEAD,
}
UNTIED = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
TIED = {**UNTIED, "tie_word_embeddings": True}
PER_TOKEN = {"experts_per_token": ("num_experts_per_tok",)}
WHOLE_HEADS = (("hidden_size", "num_attention_heads"),)
