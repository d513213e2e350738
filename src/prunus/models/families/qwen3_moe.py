"""Qwen3-MoE: a Qwen3 with experts in every layer."""

from dataclasses import replace

from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EXPERTS,
    FEEDS_EXPERTS,
    HEAD_NORMS,
    PER_TOKEN,
    PRE_NORMS,
)
from prunus.models.families.qwen3 import FAMILY as QWEN3

FAMILY = replace(
    QWEN3,
    name="Qwen3-MoE",
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
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
