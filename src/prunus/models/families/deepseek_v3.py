"""DeepSeek-V3, R1, Moonlight: latent attention (MLA), sigmoid routers in groups, and first layers without experts."""

from dataclasses import replace

from prunus.models.families.glm4_moe import FAMILY as GLM4_MOE
from prunus.models.families.parts import (
    FEEDS_MIXTURE,
    IN_DENSE,
    IN_SPARSE,
    LATENT_ATTENTION,
    LATENT_SIZES,
    PRE_NORMS,
    SHARED_EXPERTS,
    TO_LATENT_ATTENTION,
)
from prunus.models.families.rotary import Rotary

FAMILY = replace(
    GLM4_MOE,
    name="DeepSeek-V3",
    model_type="deepseek_v3",
    class_name="DeepseekV3ForCausalLM",
    models="DeepSeek-V3, R1, Moonlight 16B-A3B",
    about="latent attention (MLA); experts, and shared ones, after first layers without; a bias of the router",
    layered={
        **PRE_NORMS,
        **LATENT_ATTENTION,
        **IN_DENSE,
        **IN_SPARSE,
        "mlp.gate.e_score_correction_bias": "experts in sparse",
        **SHARED_EXPERTS,
    },
    flags={"tie_word_embeddings": False},
    keys={**GLM4_MOE.keys, "head_dim": ("v_head_dim",)},
    latent=LATENT_SIZES,
    dense_layers=("first_k_dense_replace", 3),
    defaults={
        "num_experts": lambda _: 256,
        "num_experts_per_tok": lambda _: 8,
        "head_dim": lambda _: 128,
    },
    requires={"attention_bias": False, "moe_layer_freq": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    feeds={**FEEDS_MIXTURE, **TO_LATENT_ATTENTION},
    query_norm="",
    rotary=Rotary(interleaved=True),
    epsilon=1e-6,
    gguf=None,
)
