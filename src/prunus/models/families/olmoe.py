"""OLMoE: experts in every layer, and norms over all heads of queries and of keys."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf, Required
from prunus.models.families.olmo2 import FAMILY as OLMO2
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EXPERTS,
    FEEDS_EXPERTS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_EXPERTS,
    NAMED_HEAD_NORMS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    STACKED,
    WIDE_HEAD_NORMS,
    read_experts,
)

FAMILY = replace(
    OLMO2,
    name="OLMoE",
    model_type="olmoe",
    class_name="OlmoeForCausalLM",
    models="OLMoE",
    about="experts",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **WIDE_HEAD_NORMS, **EXPERTS},
    keys={"num_experts": ("num_experts", "num_local_experts")},
    older_names={"num_local_experts": "num_experts"},
    experts=STACKED,
    absent=("head_dim",),
    defaults={"num_experts_per_tok": lambda _: 8},
    square=True,
    feeds=FEEDS_EXPERTS,
    writers=(),
    gguf=Gguf(
        "olmoe",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_HEAD_NORMS, **NAMED_EXPERTS},
        untied=True,
        required=(Required("norm_topk_prob", value=False, default=False), Required("clip_qkv", value=None)),
        read=read_experts,
    ),
)
