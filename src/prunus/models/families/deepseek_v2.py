"""DeepSeek-V2: as DeepSeek-V3, with softmax routers, whose weights are not normalised."""

from dataclasses import replace

from prunus.models.families.deepseek_v3 import FAMILY as DEEPSEEK_V3
from prunus.models.families.parts import (
    IN_DENSE,
    IN_SPARSE,
    LATENT_ATTENTION,
    PRE_NORMS,
    SHARED_EXPERTS,
    STACKED,
    WHOLE_HEADS,
)

FAMILY = replace(
    DEEPSEEK_V3,
    name="DeepSeek-V2",
    model_type="deepseek_v2",
    class_name="DeepseekV2ForCausalLM",
    models="DeepSeek-V2, V2-Lite",
    about="latent attention (MLA); experts, and shared ones, after first layers without",
    layered={**PRE_NORMS, **LATENT_ATTENTION, **IN_DENSE, **IN_SPARSE, **SHARED_EXPERTS},
    keys={**DEEPSEEK_V3.keys, "num_experts": ("n_routed_experts", "num_experts")},
    older_names={"num_experts": "n_routed_experts"},
    multiples={"shared_expert_intermediate_size": ("intermediate_size", "n_shared_experts", 2)},
    dense_layers=("first_k_dense_replace", 0),
    defaults={"num_experts": lambda _: 64, "head_dim": lambda _: 128},
    divisible=WHOLE_HEADS,
    requires={
        "attention_bias": False,
        "mlp_bias": False,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "topk_method": lambda _: ("greedy", "group_limited_greedy"),
    },
    experts=STACKED,
)
