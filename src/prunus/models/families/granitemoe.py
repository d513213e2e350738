"""Granite 3 with experts, which are stacked in one tensor."""

from dataclasses import replace

from prunus.models.families.family import Experts
from prunus.models.families.granite import FAMILY as GRANITE
from prunus.models.families.parts import ATTENTION, ATTENTION_BIAS, PRE_NORMS, TO_ATTENTION, TO_HEAD

_EXPERTS = {
    "block_sparse_moe.router.layer.weight": "experts hidden",
    "block_sparse_moe.input_linear.weight": "experts: mlp+mlp hidden",
    "block_sparse_moe.output_linear.weight": "experts: hidden mlp",
}
_READERS = ("block_sparse_moe.router.layer", "block_sparse_moe.input_linear")

FAMILY = replace(
    GRANITE,
    name="Granite MoE",
    model_type="granitemoe",
    class_name="GraniteMoeForCausalLM",
    models="Granite 3.x 1B-A400M, 3B-A800M",
    about="as Granite; experts in every layer",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **_EXPERTS},
    flags={"attention_bias": False, "tie_word_embeddings": False},
    keys={"num_experts": ("num_local_experts", "num_experts")},
    experts=Experts("block_sparse_moe", "router", "experts", "gate_up_proj", "down_proj"),
    absent=(),
    defaults={"num_experts": lambda _: 8, "num_experts_per_tok": lambda _: 2},
    feeds={**TO_ATTENTION, "post_attention_layernorm": _READERS, **TO_HEAD},
    gguf=None,
    onnx=False,
)
