"""Granite 3: a Llama with multipliers in its config."""

from dataclasses import replace

from prunus.models.families.llama import FAMILY as LLAMA

FAMILY = replace(
    LLAMA,
    name="Granite",
    model_type="granite",
    class_name="GraniteForCausalLM",
    divisible=(),
    fixed_scale=True,
)
