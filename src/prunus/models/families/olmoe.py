"""OLMoE: experts in every layer, and norms over all heads of queries and of keys."""

from dataclasses import replace

from prunus.models.families.olmo2 import FAMILY as OLMO2
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EXPERTS,
    FEEDS_EXPERTS,
    PER_TOKEN,
    PRE_NORMS,
    WIDE_HEAD_NORMS,
)

FAMILY = replace(
    OLMO2,
    name="OLMoE",
    model_type="olmoe",
    class_name="OlmoeForCausalLM",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **WIDE_HEAD_NORMS, **EXPERTS},
    keys={"num_experts": ("num_experts", "num_local_experts"), **PER_TOKEN},
    absent=("head_dim",),
    defaults={"experts_per_token": lambda _: 8},
    square=True,
    feeds=FEEDS_EXPERTS,
    writers=(),
)
