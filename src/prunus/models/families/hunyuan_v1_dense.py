"""Hunyuan, the dense ones: a Llama with norms over each head of queries and keys, after their rotation."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, ATTENTION_BIAS, GATED_MLP, NAMED_USUAL, PRE_NORMS
from prunus.models.families.rotary import Rotary

_HEAD_NORMS = {"self_attn.query_layernorm.weight": "head_dim", "self_attn.key_layernorm.weight": "head_dim"}
_NAMED_HEAD_NORMS = {"self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm"}

FAMILY = replace(
    LLAMA,
    name="Hunyuan",
    model_type="hunyuan_v1_dense",
    class_name="HunYuanDenseV1ForCausalLM",
    models="Hunyuan 0.5B to 7B",
    about="norms over each head of q and k, after the rotation",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **_HEAD_NORMS, **GATED_MLP},
    flags={"attention_bias": False, "tie_word_embeddings": False},
    divisible=(),
    rotary=Rotary(alpha=True),
    query_norm="self_attn.query_layernorm",
    epsilon=1e-5,
    gguf=Gguf("hunyuan-dense", {**NAMED_USUAL, **_NAMED_HEAD_NORMS}),
    onnx=False,
)
