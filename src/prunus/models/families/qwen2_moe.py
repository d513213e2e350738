"""Qwen1.5-MoE and Qwen2-MoE: a Qwen2 with experts in every layer, and a gated one for all tokens."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, KeyReader, Required, Sizes
from prunus.models.families.parts import (
    ATTENTION,
    EXPERTS,
    FEEDS_EXPERTS,
    INPUT_BIAS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_EXPERTS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    STACKED,
    read_experts,
    under,
)
from prunus.models.families.qwen2 import FAMILY as QWEN2

_SHARED = {
    "mlp.shared_expert.gate_proj.weight": "shared hidden",
    "mlp.shared_expert.up_proj.weight": "shared hidden",
    "mlp.shared_expert.down_proj.weight": "hidden shared",
    "mlp.shared_expert_gate.weight": "1 hidden",
}
_READ = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert_gate")
_NAMED = {
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}


def _sliding_before(layer: int, config: Mapping[str, Any]) -> str:
    """Every second layer before max_window_layers slides, if sliding is enabled."""
    first = config.get("max_window_layers")
    slides = config.get("use_sliding_window", False) and layer % 2 == 0 and layer < (28 if first is None else first)
    return "sliding_attention" if slides else "full_attention"


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, int]:
    return {
        "expert_feed_forward_length": sizes["intermediate_size"],
        "expert_shared_feed_forward_length": sizes["shared_expert_intermediate_size"],
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    return {**read_experts(keys, config, sizes), "norm_topk_prob": False}


FAMILY = replace(
    QWEN2,
    name="Qwen2-MoE",
    model_type="qwen2_moe",
    class_name="Qwen2MoeForCausalLM",
    models="Qwen1.5-MoE A2.7B, Qwen2 57B-A14B",
    about="experts, and a gated shared one, in every layer; biases on q, k, v",
    layered={**PRE_NORMS, **ATTENTION, **under("qkv_bias", INPUT_BIAS), **EXPERTS, **_SHARED},
    keys={
        "num_experts": ("num_experts", "num_local_experts"),
        "intermediate_size": ("moe_intermediate_size",),
        "shared_expert_intermediate_size": ("shared_expert_intermediate_size",),
    },
    older_names={"num_local_experts": "num_experts"},
    experts=replace(STACKED, gated="mlp.shared_expert.down_proj"),
    absent=(),
    defaults={"num_experts_per_tok": lambda _: 4, "shared_expert_intermediate_size": lambda _: 5632},
    flags={"qkv_bias": True, "tie_word_embeddings": False},
    lists={"layer_types": _sliding_before},
    requires={"decoder_sparse_step": 1, "mlp_only_layers": []},
    feeds={**FEEDS_EXPERTS, "post_attention_layernorm": (*FEEDS_EXPERTS["post_attention_layernorm"], *_READ)},
    gguf=Gguf(
        "qwen2moe",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_EXPERTS, **_NAMED},
        square=True,
        biases=("qkv_bias",),
        required=(Required("norm_topk_prob", value=False, default=False),),
        write=_write,
        read=_read,
    ),
    onnx=False,
)
