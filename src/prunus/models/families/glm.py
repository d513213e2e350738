"""GLM-4 9B of 2024: gate and up in one matrix; half of each head is rotated, in interleaved pairs."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    INPUT_BIAS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    TO_ATTENTION,
    TO_HEAD,
)
from prunus.models.families.rotary import Rotary

FUSED_MLP = {"mlp.gate_up_proj.weight": "mlp+mlp hidden", "mlp.down_proj.weight": "hidden mlp"}
NAMED_FUSED_MLP = {"mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}

FAMILY = replace(
    LLAMA,
    name="GLM-4",
    model_type="glm",
    class_name="GlmForCausalLM",
    models="GLM-4 9B (`glm-4-9b-chat-hf`), GLM-Edge",
    about="adjacent rotary pairs in part of a head, gate and up in one matrix",
    layered={**PRE_NORMS, **ATTENTION, **INPUT_BIAS, **FUSED_MLP},
    flags={"attention_bias": True, "tie_word_embeddings": False},
    defaults={"head_dim": lambda _: 128},
    divisible=(),
    feeds={**TO_ATTENTION, "post_attention_layernorm": ("mlp.gate_up_proj",), **TO_HEAD},
    rotary=Rotary(share=0.5, partial=True, interleaved=True),
    epsilon=1.5625e-7,
    gguf=Gguf(
        "chatglm",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_FUSED_MLP},
        square=True,
        biases=("attention_bias",),
    ),
    onnx=False,
)
