"""Mistral (7B, NeMo, Small): a Llama without biases, whose layers all attend in a window where one is named."""

from dataclasses import replace

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, GATED_MLP, PRE_NORMS

FAMILY = replace(
    LLAMA,
    name="Mistral",
    model_type="mistral",
    class_name="MistralForCausalLM",
    layered={**PRE_NORMS, **ATTENTION, **GATED_MLP},
    divisible=(),
)
