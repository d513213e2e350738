"""GLM-4 and GLM-Z1 of 2025 (0414): the GLM-4 of 2024 with norms after the sublayers too."""

from dataclasses import replace

from prunus.models.families.glm import FAMILY as GLM
from prunus.models.families.parts import PRE_NORMS

_POST_NORMS = {"post_self_attn_layernorm.weight": "hidden", "post_mlp_layernorm.weight": "hidden"}

assert GLM.gguf is not None

FAMILY = replace(
    GLM,
    name="GLM-4-0414",
    model_type="glm4",
    class_name="Glm4ForCausalLM",
    models="GLM-4-0414, GLM-Z1",
    about="as GLM-4, and four norms per layer",
    layered={**PRE_NORMS, **_POST_NORMS, **{key: line for key, line in GLM.layered.items() if key not in PRE_NORMS}},
    feeds={},
    writers=("post_self_attn_layernorm", "post_mlp_layernorm"),
    gguf=replace(
        GLM.gguf,
        architecture="glm4",
        square=False,
        names={
            **GLM.gguf.names,
            "post_self_attn_layernorm": "post_attention_norm",
            "post_mlp_layernorm": "post_ffw_norm",
        },
    ),
)
