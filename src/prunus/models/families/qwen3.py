"""Qwen3: Qwen2 with norms over each head of queries and keys instead of biases."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    GATED_MLP,
    HEAD_NORMS,
    NAMED_HEAD_NORMS,
    NAMED_USUAL,
    PRE_NORMS,
)
from prunus.models.families.qwen2 import FAMILY as QWEN2

FAMILY = replace(
    QWEN2,
    name="Qwen3",
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    models="Qwen3, dense",
    about="norms over each head of q and k",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **HEAD_NORMS, **GATED_MLP},
    defaults={"head_dim": lambda _: 128},
    query_norm="self_attn.q_norm",
    gguf=Gguf("qwen3", {**NAMED_USUAL, **NAMED_HEAD_NORMS}),
)
