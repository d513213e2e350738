"""ERNIE 4.5, the mixtures: shared experts, and first layers without experts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.ernie4_5 import FAMILY as ERNIE
from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.parts import (
    ATTENTION,
    FEEDS_MIXTURE,
    IN_DENSE,
    IN_SPARSE,
    NAMED_EXPERTS,
    NAMED_SHARED_EXPERTS,
    NAMED_USUAL,
    PRE_NORMS,
    SHARED_EXPERTS,
    STACKED,
    head_dim_or,
)

_BIAS = "mlp.moe_statics.e_score_correction_bias"


def _to_the_end(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Values of moe_layer_end_index by which all layers after the first ones have experts."""
    layers = config.get("num_hidden_layers")
    return (-1, layers - 1) if isinstance(layers, int) else (-1,)


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    return {
        "feed_forward_length": sizes["dense_intermediate_size"],
        "expert_feed_forward_length": sizes["intermediate_size"],
        "expert_shared_feed_forward_length": sizes.get("shared_expert_intermediate_size", 0),
        "expert_shared_count": config.get("moe_num_shared_experts", 2),
        "leading_dense_block_count": sizes.get("dense_layers", 0),
        "interleave_moe_layer_step": 1,
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    keys.only("interleave_moe_layer_step", 1)
    shared = keys.whole("expert_shared_feed_forward_length", 0)
    keys.take("expert_shared_count")
    return {
        "moe_num_shared_experts": shared // sizes["intermediate_size"],
        "moe_layer_start_index": keys.whole("leading_dense_block_count", 0),
        "moe_layer_end_index": -1,
        "moe_layer_interval": 1,
    }


FAMILY = replace(
    ERNIE,
    name="ERNIE 4.5 MoE",
    model_type="ernie4_5_moe",
    class_name="Ernie4_5_MoeForCausalLM",
    models="ERNIE 4.5 21B-A3B, 300B-A47B",
    about="as ERNIE 4.5; experts, and shared ones, after first layers without",
    layered={**PRE_NORMS, **ATTENTION, **IN_DENSE, **IN_SPARSE, _BIAS: "1 experts in sparse", **SHARED_EXPERTS},
    flags={"tie_word_embeddings": True},
    keys={
        "num_experts": ("moe_num_experts", "num_experts"),
        "num_experts_per_tok": ("moe_k", "num_experts_per_tok"),
        "intermediate_size": ("moe_intermediate_size",),
        "dense_intermediate_size": ("intermediate_size",),
    },
    multiples={"shared_expert_intermediate_size": ("intermediate_size", "moe_num_shared_experts", 2)},
    dense_layers=("moe_layer_start_index", 1),
    ignored=("model.mtp_",),
    resets={"moe_layer_end_index": -1, "num_nextn_predict_layers": 0},
    requires={"use_bias": False, "moe_layer_interval": 1, "moe_layer_end_index": _to_the_end},
    experts=STACKED,
    absent=(),
    defaults={"head_dim": head_dim_or(128), "num_experts": lambda _: 64, "num_experts_per_tok": lambda _: 6},
    feeds=FEEDS_MIXTURE,
    gguf=Gguf(
        "ernie4_5-moe",
        {**NAMED_USUAL, **NAMED_EXPERTS, **NAMED_SHARED_EXPERTS, _BIAS: "exp_probs_b.bias"},
        write=_write,
        read=_read,
    ),
    onnx=False,
)
