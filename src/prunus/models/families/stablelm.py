"""StableLM 2 and StableLM 3B: a Llama with LayerNorm, a quarter of each head rotated."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    EMBEDDINGS,
    GATED_MLP,
    INPUT_BIAS,
    NAMED_USUAL,
    PRE_NORMS,
    WHOLE_HEADS,
    under,
)
from prunus.models.families.rotary import Rotary

PRE_NORM_BIAS = {"input_layernorm.bias": "hidden", "post_attention_layernorm.bias": "hidden"}

FAMILY = replace(
    LLAMA,
    name="StableLM",
    model_type="stablelm",
    class_name="StableLmForCausalLM",
    models="StableLM 3B, StableLM 2 1.6B",
    about="LayerNorm, part of a head rotated",
    shared={**EMBEDDINGS, "model.norm.bias": "hidden"},
    layered={**PRE_NORMS, **PRE_NORM_BIAS, **ATTENTION, **under("use_qkv_bias", INPUT_BIAS), **GATED_MLP},
    absent=("num_experts", "head_dim"),
    flags={"use_qkv_bias": False, "tie_word_embeddings": False},
    requires={"qk_layernorm": False, "use_parallel_residual": False},
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    rotary=Rotary(share=0.25, partial=True),
    epsilon_key="layer_norm_eps",
    epsilon=1e-5,
    gguf=Gguf("stablelm", NAMED_USUAL, untied=True, biases=("use_qkv_bias",)),
    onnx=False,
)
