"""Table lines and llama.cpp names that several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prunus.models.families.family import Experts
from prunus.models.families.gguf import KeyReader, Sizes

QUERY, KEY, VALUE, OUTPUT = "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"
"""The attention modules of Llama and similar families."""

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
LATENT_ATTENTION = {
    "self_attn.q_proj.weight": "(heads qk) hidden if not q_lora_rank",
    "self_attn.q_a_proj.weight": "q_rank hidden if q_lora_rank",
    "self_attn.q_a_layernorm.weight": "q_rank if q_lora_rank",
    "self_attn.q_b_proj.weight": "(heads qk) q_rank if q_lora_rank",
    "self_attn.kv_a_proj_with_mqa.weight": "kv_rank+rope hidden",
    "self_attn.kv_a_layernorm.weight": "kv_rank",
    "self_attn.kv_b_proj.weight": "(heads kv) kv_rank",
    "self_attn.o_proj.weight": "hidden (heads head_dim)",
}
"""Multi-head latent attention (MLA) of DeepSeek-V2 (arXiv 2405.04434, section 2.1); head_dim is that of values."""
LATENT_SIZES = {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
INPUT_BIAS = {
    "self_attn.q_proj.bias": "(heads head_dim) if attention_bias",
    "self_attn.k_proj.bias": "(kv_heads head_dim) if attention_bias",
    "self_attn.v_proj.bias": "(kv_heads head_dim) if attention_bias",
}
ATTENTION_BIAS = {**INPUT_BIAS, "self_attn.o_proj.bias": "hidden if attention_bias"}
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
IN_SPARSE = {key: f"{line} in sparse" for key, line in EXPERTS.items()}
"""Experts in layers that are not among the first, dense ones."""
SHARED_EXPERTS = {
    "mlp.shared_experts.gate_proj.weight": "shared hidden in sparse",
    "mlp.shared_experts.up_proj.weight": "shared hidden in sparse",
    "mlp.shared_experts.down_proj.weight": "hidden shared in sparse",
}
IN_DENSE = {key: f"{line.replace('mlp', 'dense')} in dense" for key, line in GATED_MLP.items()}
"""The MLP of layers without experts."""
STACKED = Experts("mlp", "gate", "experts", "gate_up_proj", "down_proj")
PRE_NORMS = {"input_layernorm.weight": "hidden", "post_attention_layernorm.weight": "hidden"}
POST_NORMS = {"post_attention_layernorm.weight": "hidden", "post_feedforward_layernorm.weight": "hidden"}
HEAD_NORMS = {"self_attn.q_norm.weight": "head_dim", "self_attn.k_norm.weight": "head_dim"}
WIDE_HEAD_NORMS = {
    "self_attn.q_norm.weight": "(heads head_dim)",
    "self_attn.k_norm.weight": "(kv_heads head_dim)",
}
TO_ATTENTION = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}
TO_LATENT_ATTENTION = {"input_layernorm": ("self_attn.q_proj", "self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa")}
TO_HEAD = {"model.norm": ("lm_head",)}
IN_PARALLEL = {"input_layernorm": (*TO_ATTENTION["input_layernorm"], "mlp.gate_proj", "mlp.up_proj"), **TO_HEAD}
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
FEEDS_MIXTURE = {
    **FEEDS_EXPERTS,
    "post_attention_layernorm": (
        *FEEDS_EXPERTS["post_attention_layernorm"],
        "mlp.shared_experts.gate_proj",
        "mlp.shared_experts.up_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
    ),
}
UNTIED = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
TIED = {**UNTIED, "tie_word_embeddings": True}
WHOLE_HEADS = (("hidden_size", "num_attention_heads"),)

NAMED_EMBEDDINGS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
NAMED_PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
NAMED_POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NAMED_ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
NAMED_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
NAMED_MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NAMED_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.{experts}.gate_proj": "ffn_gate_exps",
    "mlp.experts.{experts}.up_proj": "ffn_up_exps",
    "mlp.experts.{experts}.down_proj": "ffn_down_exps",
}
NAMED_SHARED_EXPERTS = {
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
NAMED_USUAL = {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_MLP}
TURNED = ("attn_q", "attn_k")


def under(flag: str, table: Mapping[str, str]) -> dict[str, str]:
    """The lines of a table with `flag` as their condition; without one if it is empty."""
    lines = {key: line.partition(" if ")[0] for key, line in table.items()}
    return {key: f"{line} if {flag}" if flag else line for key, line in lines.items()}


def head_dim_or(default: int) -> Callable[[Mapping[str, Any]], int]:
    """`head_dim` of a config.json without it; if it is null, hidden_size / heads."""
    return lambda config: config["hidden_size"] // config["num_attention_heads"] if "head_dim" in config else default


def read_experts(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Check that a file's keys about experts, if present, have the values that llama.cpp assumes.

    Raises:
        ModelError: A key has another value.
    """
    if "norm_topk_prob" in config:
        keys.only("expert_weights_norm", config["norm_topk_prob"])
    keys.only("expert_weights_scale", 0.0, 1.0)
    keys.only("interleave_moe_layer_step", 1)
    return {}
