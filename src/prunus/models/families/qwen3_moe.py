"""Qwen3-MoE: a Qwen3 with experts in every layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, Required, Sizes
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EXPERTS,
    FEEDS_EXPERTS,
    HEAD_NORMS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_EXPERTS,
    NAMED_HEAD_NORMS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    STACKED,
    read_experts,
)
from prunus.models.families.qwen3 import FAMILY as QWEN3


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, int]:
    return {"expert_feed_forward_length": sizes["intermediate_size"]}


FAMILY = replace(
    QWEN3,
    name="Qwen3-MoE",
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    models="Qwen3 30B-A3B, 235B-A22B",
    about="experts in every layer",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **HEAD_NORMS, **EXPERTS},
    keys={
        "num_experts": ("num_experts", "num_local_experts"),
        "intermediate_size": ("moe_intermediate_size",),
    },
    older_names={"num_local_experts": "num_experts"},
    experts=STACKED,
    absent=(),
    defaults={"num_experts_per_tok": lambda _: 8},
    requires={"decoder_sparse_step": 1, "mlp_only_layers": []},
    lists={},
    feeds=FEEDS_EXPERTS,
    gguf=Gguf(
        "qwen3moe",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_HEAD_NORMS, **NAMED_EXPERTS},
        required=(Required("norm_topk_prob", value=True, default=False),),
        write=_write,
        read=read_experts,
    ),
    onnx=False,
)
