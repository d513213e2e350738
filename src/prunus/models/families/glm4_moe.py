"""GLM-4.5 to 4.7: sigmoid routers in groups, a shared expert, and first layers without experts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    FEEDS_MIXTURE,
    HEAD_NORMS,
    IN_DENSE,
    IN_SPARSE,
    INPUT_BIAS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_EXPERTS,
    NAMED_HEAD_NORMS,
    NAMED_MLP,
    NAMED_SHARED_EXPERTS,
    PRE_NORMS,
    SHARED_EXPERTS,
    STACKED,
    under,
)
from prunus.models.families.rotary import Rotary

_SIGMOID = 2  # llama.cpp's number of the function


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    shared = config.get("n_shared_experts", 1)
    return {
        "feed_forward_length": sizes["dense_intermediate_size"],
        "expert_feed_forward_length": sizes["intermediate_size"],
        "expert_shared_count": shared,
        "leading_dense_block_count": sizes.get("dense_layers", 0),
        "expert_group_count": sizes["expert_groups"],
        "expert_group_used_count": sizes["routed_groups"],
        "expert_gating_func": _SIGMOID,
        "expert_weights_scale": float(config.get("routed_scaling_factor", 1.0)),
        "expert_weights_norm": bool(config.get("norm_topk_prob", True)),
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    keys.only("expert_gating_func", _SIGMOID)
    keys.only("nextn_predict_layers", 0)
    return {
        "n_shared_experts": keys.whole("expert_shared_count", 0),
        "first_k_dense_replace": keys.whole("leading_dense_block_count", 0),
        "n_group": keys.whole("expert_group_count", 1),
        "topk_group": keys.whole("expert_group_used_count", 1),
        "routed_scaling_factor": keys.number("expert_weights_scale", 1.0),
        "norm_topk_prob": bool(keys.take("expert_weights_norm", False)),
        "num_nextn_predict_layers": 0,
    }


FAMILY = replace(
    LLAMA,
    name="GLM-4.5",
    model_type="glm4_moe",
    class_name="Glm4MoeForCausalLM",
    models="GLM-4.5, 4.5-Air, 4.6, 4.7",
    about="experts, and a shared one, after first layers without; a bias of the router; part of a head rotated",
    layered={
        **PRE_NORMS,
        **ATTENTION,
        **INPUT_BIAS,
        **under("use_qk_norm", HEAD_NORMS),
        **IN_DENSE,
        **IN_SPARSE,
        "mlp.gate.e_score_correction_bias": "experts in sparse",
        **SHARED_EXPERTS,
    },
    flags={"attention_bias": False, "use_qk_norm": False, "tie_word_embeddings": False},
    keys={
        "num_experts": ("n_routed_experts", "num_local_experts"),
        "intermediate_size": ("moe_intermediate_size",),
        "dense_intermediate_size": ("intermediate_size",),
    },
    older_names={"num_local_experts": "n_routed_experts"},
    multiples={"shared_expert_intermediate_size": ("intermediate_size", "n_shared_experts", 1)},
    dense_layers=("first_k_dense_replace", 1),
    groups=("n_group", "topk_group"),
    further_layers=True,
    resets={"num_nextn_predict_layers": 0, "num_mtp_layers": 0},
    experts=replace(STACKED, probability="sigmoid"),
    absent=(),
    defaults={
        "num_experts": lambda _: 128,
        "num_experts_per_tok": lambda _: 8,
    },
    divisible=(),
    feeds=FEEDS_MIXTURE,
    query_norm="self_attn.q_norm",
    rotary=Rotary(share=0.5, partial=True),
    epsilon=1e-5,
    gguf=Gguf(
        "glm4moe",
        {
            **NAMED_EMBEDDINGS,
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "post_attention_norm",
            **NAMED_ATTENTION,
            **NAMED_HEAD_NORMS,
            **NAMED_MLP,
            **NAMED_EXPERTS,
            **NAMED_SHARED_EXPERTS,
            "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
        },
        biases=("attention_bias",),
        write=_write,
        read=_read,
    ),
    onnx=False,
)
