"""Mixtral: a Mistral with experts in every layer."""

from dataclasses import replace

from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import ATTENTION, PER_TOKEN, PRE_NORMS, TO_ATTENTION, TO_HEAD

FAMILY = replace(
    MISTRAL,
    name="Mixtral",
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    layered={
        **PRE_NORMS,
        **ATTENTION,
        "block_sparse_moe.gate.weight": "experts hidden",
        "block_sparse_moe.experts.{experts}.w1.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w3.weight": "mlp hidden",
        "block_sparse_moe.experts.{experts}.w2.weight": "hidden mlp",
    },
    keys={"num_experts": ("num_local_experts",), **PER_TOKEN},
    absent=(),
    defaults={"experts_per_token": lambda _: 2},
    feeds={
        **TO_ATTENTION,
        "post_attention_layernorm": (
            "block_sparse_moe.gate",
            "block_sparse_moe.experts.{experts}.w1",
            "block_sparse_moe.experts.{experts}.w3",
        ),
        **TO_HEAD,
    },
)
