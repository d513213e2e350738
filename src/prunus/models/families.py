"""The families that Prunus can cut, a table each. docs/families.md says how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.errors import ModelError, nearest
from prunus.models.axes import Family
from prunus.models.foreign import check_plain, describe_unknown
from prunus.models.settings import check_settings

Config = Mapping[str, Any]

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


def _sliding_from(layer: int, config: Config) -> str:
    """Qwen's rule: layers from max_window_layers on slide, where sliding is switched on."""
    on = config.get("use_sliding_window", False) and config.get("sliding_window") is not None
    first = config.get("max_window_layers")
    return "sliding_attention" if on and layer >= (28 if first is None else first) else "full_attention"


def _sliding_but_every(layer: int, config: Config) -> str:
    """Gemma's rule: all layers slide but every second (Gemma 2) or sixth (Gemma 3)."""
    period = 2 if config["model_type"] == "gemma2" else (config.get("sliding_window_pattern") or 6)
    return "sliding_attention" if (layer + 1) % period else "full_attention"


def _rope_but_every(layer: int, config: Config) -> int:
    """SmolLM3's rule: every fourth layer goes without rotary positions."""
    return int((layer + 1) % (config.get("no_rope_layer_interval") or 4) != 0)


def _sliding_without_rope(layer: int, config: Config) -> str:
    """SmolLM3's rule: where sliding is switched on, the layers without rotary positions slide."""
    ropes = config.get("no_rope_layers")
    rope = ropes[layer] if ropes else _rope_but_every(layer, config)
    on = config.get("use_sliding_window", False) and config.get("sliding_window") is not None
    return "sliding_attention" if on and not rope else "full_attention"


LLAMA = Family(
    name="Llama",
    model_types=("llama",),
    layer="model.layers.{}.",
    shared=EMBEDDINGS,
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **GATED_MLP, **MLP_BIAS},
    flags=UNTIED,
    divisible=WHOLE_HEADS,
    feeds=FEEDS,
)
MISTRAL = replace(
    LLAMA, name="Mistral", model_types=("mistral",), layered={**PRE_NORMS, **ATTENTION, **GATED_MLP}, divisible=()
)
GRANITE = replace(LLAMA, name="Granite", model_types=("granite",), divisible=(), fixed_scale=True)
SMOLLM3 = replace(
    LLAMA,
    name="SmolLM3",
    model_types=("smollm3",),
    flags=TIED,
    divisible=(),
    lists={"no_rope_layers": _rope_but_every, "layer_types": _sliding_without_rope},
)
QWEN2 = replace(
    MISTRAL,
    name="Qwen2",
    model_types=("qwen2",),
    layered={
        **MISTRAL.layered,
        "self_attn.q_proj.bias": "(heads head_dim)",
        "self_attn.k_proj.bias": "(kv_heads head_dim)",
        "self_attn.v_proj.bias": "(kv_heads head_dim)",
    },
    lists={"layer_types": _sliding_from},
)
QWEN3 = replace(
    QWEN2,
    name="Qwen3",
    model_types=("qwen3",),
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **HEAD_NORMS, **GATED_MLP},
    defaults={"head_dim": lambda _: 128},
)
GEMMA2 = Family(
    name="Gemma 2",
    model_types=("gemma2",),
    layer="model.layers.{}.",
    shared=EMBEDDINGS,
    layered={
        "input_layernorm.weight": "hidden",
        **ATTENTION,
        **ATTENTION_BIAS,
        "pre_feedforward_layernorm.weight": "hidden",
        **POST_NORMS,
        **GATED_MLP,
    },
    flags=TIED,
    divisible=WHOLE_HEADS,
    defaults={"head_dim": lambda _: 256},
    lists={"layer_types": _sliding_but_every},
    gain_offset=1.0,
    writers=("post_attention_layernorm", "post_feedforward_layernorm"),
    scaled_embedding=True,
    fixed_scale=True,
)
GEMMA3 = replace(GEMMA2, name="Gemma 3", model_types=("gemma3_text",), layered={**GEMMA2.layered, **HEAD_NORMS})
PHI3 = replace(
    MISTRAL,
    name="Phi-3",
    model_types=("phi3",),
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
OLMO2 = replace(
    LLAMA,
    name="OLMo 2",
    model_types=("olmo2",),
    layered={**ATTENTION, **ATTENTION_BIAS, **WIDE_HEAD_NORMS, **POST_NORMS, **GATED_MLP},
    divisible=(),
    feeds={},
    writers=("post_attention_layernorm", "post_feedforward_layernorm"),
)
GPT_NEOX = Family(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    layer="gpt_neox.layers.{}.",
    shared={
        "gpt_neox.embed_in.weight": "vocab hidden",
        "gpt_neox.final_layer_norm.weight": "hidden",
        "gpt_neox.final_layer_norm.bias": "hidden",
        "embed_out.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "input_layernorm.weight": "hidden",
        "input_layernorm.bias": "hidden",
        "post_attention_layernorm.weight": "hidden",
        "post_attention_layernorm.bias": "hidden",
        "attention.query_key_value.weight": "(heads 3 head_dim) hidden",
        "attention.query_key_value.bias": "(heads 3 head_dim) if attention_bias",
        "attention.dense.weight": "hidden (heads head_dim)",
        "attention.dense.bias": "hidden if attention_bias",
        "mlp.dense_h_to_4h.weight": "mlp hidden",
        "mlp.dense_h_to_4h.bias": "mlp",
        "mlp.dense_4h_to_h.weight": "hidden mlp",
        "mlp.dense_4h_to_h.bias": "hidden",
    },
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    flags={"attention_bias": True, "tie_word_embeddings": False},
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    feeds={
        "input_layernorm": ("attention.query_key_value",),
        "post_attention_layernorm": ("mlp.dense_h_to_4h",),
        "gpt_neox.final_layer_norm": ("embed_out",),
    },
)
GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    layer="transformer.h.{}.",
    shared={
        "transformer.wte.weight": "vocab hidden",
        "transformer.wpe.weight": "positions hidden",
        "transformer.ln_f.weight": "hidden",
        "transformer.ln_f.bias": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "ln_1.weight": "hidden",
        "ln_1.bias": "hidden",
        "ln_2.weight": "hidden",
        "ln_2.bias": "hidden",
        "attn.c_attn.weight": "hidden (3 heads head_dim)",
        "attn.c_attn.bias": "(3 heads head_dim)",
        "attn.c_proj.weight": "(heads head_dim) hidden",
        "attn.c_proj.bias": "hidden",
        "mlp.c_fc.weight": "hidden mlp",
        "mlp.c_fc.bias": "mlp",
        "mlp.c_proj.weight": "mlp hidden",
        "mlp.c_proj.bias": "hidden",
    },
    keys={
        "num_hidden_layers": ("n_layer",),
        "hidden_size": ("n_embd",),
        "intermediate_size": ("n_inner",),
        "num_attention_heads": ("n_head",),
        "max_position_embeddings": ("n_positions",),
    },
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    defaults={"intermediate_size": lambda config: 4 * config["n_embd"]},
    flags={"tie_word_embeddings": True},
    requires={"add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False},
    divisible=WHOLE_HEADS,
    square=True,
    conv1d=True,
    layer_norm=True,
    rotary=False,
    feeds={"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",), "transformer.ln_f": ("lm_head",)},
    prefix="transformer.",
)
MIXTRAL = replace(
    MISTRAL,
    name="Mixtral",
    model_types=("mixtral",),
    layered={
        **PRE_NORMS,
        **ATTENTION,
        "block_sparse_moe.gate.weight": "experts hidden",
        "block_sparse_moe.experts.{experts}.w1.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w3.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w2.weight": "hidden mlp",
    },
    keys={"num_experts": ("num_local_experts",), **PER_TOKEN},
    absent=(),
    defaults={"experts_per_token": lambda _: 2},
    feeds={
        **TO_ATTENTION,
        "post_attention_layernorm": (
            "block_sparse_moe.gate",
            "block_sparse_moe.experts.{experts}.w1",
            "block_sparse_moe.experts.{experts}.w3",
        ),
        **TO_HEAD,
    },
)
QWEN3_MOE = replace(
    QWEN3,
    name="Qwen3-MoE",
    model_types=("qwen3_moe",),
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **HEAD_NORMS, **EXPERTS},
    keys={
        "num_experts": ("num_experts", "num_local_experts"),
        "intermediate_size": ("moe_intermediate_size",),
        **PER_TOKEN,
    },
    absent=(),
    defaults={"experts_per_token": lambda _: 8},
    requires={"decoder_sparse_step": 1, "mlp_only_layers": []},
    lists={},
    feeds=FEEDS_EXPERTS,
)
OLMOE = replace(
    OLMO2,
    name="OLMoE",
    model_types=("olmoe",),
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **WIDE_HEAD_NORMS, **EXPERTS},
    keys={"num_experts": ("num_experts", "num_local_experts"), **PER_TOKEN},
    absent=("head_dim",),
    defaults={"experts_per_token": lambda _: 8},
    square=True,
    feeds=FEEDS_EXPERTS,
    writers=(),
)

FAMILIES = (
    LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, OLMO2, SMOLLM3, GRANITE, GPT_NEOX, GPT2,
    MIXTRAL, QWEN3_MOE, OLMOE,
)  # fmt: skip


def family_of(config: Config, where: str) -> Family:
    """The table for a model's config.json.

    Args:
        config: The contents of config.json.
        where: The folder, for the message.

    Raises:
        ModelError: No table covers its `model_type`, its weights are quantised, or it is another variant.
    """
    model_type = config.get("model_type")
    if not model_type or not isinstance(model_type, str):
        raise ModelError(f"{where}: config.json names no model_type")
    check_plain(config, where)
    for family in FAMILIES:
        if model_type in family.model_types:
            check_settings(config, family, where)
            return family
    known = [name for family in FAMILIES for name in family.model_types]
    foreign = describe_unknown(config)
    raise ModelError(
        f"{where}: no axis table for model_type {model_type!r:.80}"
        + (f": {foreign}" if foreign else f"{nearest(model_type, known)}; there are: {', '.join(known)}")
    )
