"""Seed-OSS: a Llama with biases of queries, keys and values."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    GATED_MLP,
    INPUT_BIAS,
    MLP_BIAS,
    NAMED_USUAL,
    PRE_NORMS,
    UNTIED,
    head_dim_or,
)

FAMILY = replace(
    LLAMA,
    name="Seed-OSS",
    model_type="seed_oss",
    class_name="SeedOssForCausalLM",
    models="Seed-OSS 36B",
    about="biases on q, k, v",
    layered={
        **PRE_NORMS,
        **ATTENTION,
        **INPUT_BIAS,
        "self_attn.o_proj.bias": "hidden if attention_out_bias",
        **GATED_MLP,
        **MLP_BIAS,
    },
    flags={**UNTIED, "attention_bias": True, "attention_out_bias": False},
    defaults={"head_dim": head_dim_or(128)},
    divisible=(),
    gguf=Gguf(
        "seed_oss",
        {**NAMED_USUAL, "post_attention_layernorm": "post_attention_norm"},
        biases=("attention_bias",),
    ),
    onnx=False,
)
