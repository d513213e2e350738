"""Gemma 1: a Llama with gains stored minus 1, scaled embeddings, and GELU."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, ATTENTION_BIAS, GATED_MLP, NAMED_USUAL, PRE_NORMS, TIED, head_dim_or

FAMILY = replace(
    LLAMA,
    name="Gemma",
    model_type="gemma",
    class_name="GemmaForCausalLM",
    models="Gemma 2B and 7B, CodeGemma",
    about="gains stored minus 1, embeddings times √hidden_size",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **GATED_MLP},
    flags={key: value for key, value in TIED.items() if key != "mlp_bias"},
    defaults={"head_dim": head_dim_or(256)},
    requires={"use_bidirectional_attention": False},
    divisible=(),
    gain_offset=1.0,
    scaled_embedding=True,
    gguf=Gguf("gemma", NAMED_USUAL, tied=True, activations=("gelu_pytorch_tanh", "gelu")),  # both are the first
    onnx=False,
)
