"""ERNIE 4.5, the dense ones: a Llama with interleaved rotary pairs."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    GATED_MLP,
    MLP_BIAS,
    NAMED_USUAL,
    PRE_NORMS,
    head_dim_or,
    under,
)
from prunus.models.families.rotary import Rotary

FAMILY = replace(
    LLAMA,
    name="ERNIE 4.5",
    model_type="ernie4_5",
    class_name="Ernie4_5ForCausalLM",
    models="ERNIE 4.5, dense",
    about="adjacent rotary pairs",
    layered={**PRE_NORMS, **ATTENTION, **GATED_MLP, **under("use_bias", {**ATTENTION_BIAS, **MLP_BIAS})},
    flags={"use_bias": False, "tie_word_embeddings": True},
    defaults={"head_dim": head_dim_or(128)},
    divisible=(),
    rotary=Rotary(theta=5e5, interleaved=True),
    epsilon=1e-5,
    gguf=Gguf("ernie4_5", NAMED_USUAL),
    onnx=False,
)
