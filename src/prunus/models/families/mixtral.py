"""Mixtral: a Mistral with experts in every layer."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import (
    ATTENTION,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    STACKED,
    TO_ATTENTION,
    TO_HEAD,
    TURNED,
    read_experts,
)
from prunus.models.families.rotary import Rotary

_NAMED_EXPERTS = {
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.experts.{experts}.w1": "ffn_gate_exps",
    "block_sparse_moe.experts.{experts}.w3": "ffn_up_exps",
    "block_sparse_moe.experts.{experts}.w2": "ffn_down_exps",
}

FAMILY = replace(
    MISTRAL,
    name="Mixtral",
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    models="Mixtral 8x7B, 8x22B",
    about="experts",
    layered={
        **PRE_NORMS,
        **ATTENTION,
        "block_sparse_moe.gate.weight": "experts hidden",
        "block_sparse_moe.experts.{experts}.w1.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w3.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w2.weight": "hidden mlp",
    },
    keys={"num_experts": ("num_local_experts",)},
    experts=STACKED,
    absent=(),
    defaults={"num_experts_per_tok": lambda _: 2},
    feeds={
        **TO_ATTENTION,
        "post_attention_layernorm": (
            "block_sparse_moe.gate",
            "block_sparse_moe.experts.{experts}.w1",
            "block_sparse_moe.experts.{experts}.w3",
        ),
        **TO_HEAD,
    },
    rotary=Rotary(theta=1e6),
    epsilon=1e-5,
    window=None,
    gguf=Gguf(
        "llama",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **_NAMED_EXPERTS},
        pairs=TURNED,
        factors=True,
        read=read_experts,
        recognised=lambda keys: bool(keys.get("expert_count")),
    ),
    onnx=False,
)
