"""OLMo 2: norms after the sublayers instead of before them, and norms over all heads of queries and of keys."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    GATED_MLP,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_HEAD_NORMS,
    NAMED_MLP,
    NAMED_POST_NORMS,
    POST_NORMS,
    WIDE_HEAD_NORMS,
)

FAMILY = replace(
    LLAMA,
    name="OLMo 2",
    model_type="olmo2",
    class_name="Olmo2ForCausalLM",
    models="OLMo 2",
    about="norms after the sublayers, norms over all heads of q and k",
    layered={**ATTENTION, **ATTENTION_BIAS, **WIDE_HEAD_NORMS, **POST_NORMS, **GATED_MLP},
    divisible=(),
    feeds={},
    writers=("post_attention_layernorm", "post_feedforward_layernorm"),
    query_norm="self_attn.q_norm",
    epsilon=1e-5,
    gguf=Gguf(
        "olmo2",
        {**NAMED_EMBEDDINGS, **NAMED_ATTENTION, **NAMED_HEAD_NORMS, **NAMED_POST_NORMS, **NAMED_MLP},
        square=True,
        untied=True,
    ),
    onnx=False,
)
