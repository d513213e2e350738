"""Llama 2, 3 and 3.x, and other models with the same architecture (SmolLM2, TinyLlama)."""

from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EMBEDDINGS,
    FEEDS,
    GATED_MLP,
    LAYER,
    MLP_BIAS,
    NAMED_USUAL,
    PRE_NORMS,
    TURNED,
    UNTIED,
    WHOLE_HEADS,
)

FAMILY = Family(
    name="Llama",
    model_type="llama",
    class_name="LlamaForCausalLM",
    models="Llama 2, 3.x, SmolLM2, TinyLlama, Falcon 3",
    about="transformers requires `hidden_size` to be a multiple of `num_attention_heads`, whatever `head_dim` is",
    layer=LAYER,
    shared=EMBEDDINGS,
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **GATED_MLP, **MLP_BIAS},
    flags=UNTIED,
    divisible=WHOLE_HEADS,
    feeds=FEEDS,
    gguf=Gguf("llama", NAMED_USUAL, pairs=TURNED, biases=("attention_bias", "mlp_bias"), factors=True),
    onnx=True,
)
