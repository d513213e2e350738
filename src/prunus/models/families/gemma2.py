"""Gemma 2: four norms a layer whose gains are stored less 1, scaled embeddings, soft caps, and layers that slide."""

from collections.abc import Mapping
from typing import Any

from prunus.models.families.family import Family
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EMBEDDINGS,
    GATED_MLP,
    LAYER,
    POST_NORMS,
    TIED,
    WHOLE_HEADS,
)


def _sliding_but_every_second(layer: int, config: Mapping[str, Any]) -> str:
    return "sliding_attention" if (layer + 1) % 2 else "full_attention"


FAMILY = Family(
    name="Gemma 2",
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    layer=LAYER,
    shared=EMBEDDINGS,
    layered={
        "input_layernorm.weight": "hidden",
        **ATTENTION,
        **ATTENTION_BIAS,
        "pre_feedforward_layernorm.weight": "hidden",
        **POST_NORMS,
        **GATED_MLP,
    },
    flags=TIED,
    divisible=WHOLE_HEADS,
    defaults={"head_dim": lambda _: 256},
    lists={"layer_types": _sliding_but_every_second},
    gain_offset=1.0,
    writers=("post_attention_layernorm", "post_feedforward_layernorm"),
    scaled_embedding=True,
    fixed_scale=True,
)
