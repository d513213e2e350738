"""Granite 3: a Llama with multipliers in its config."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import NAMED_USUAL, TURNED


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, float]:
    return {
        "embedding_scale": float(config.get("embedding_multiplier", 1.0)),
        "residual_scale": float(config.get("residual_multiplier", 1.0)),
        "attention.scale": float(config.get("attention_multiplier", 1.0)),
        "logit_scale": float(config.get("logits_scaling", 1.0)),
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, float]:
    """Read the multipliers; llama.cpp reads a missing one as 0."""
    return {
        "embedding_multiplier": keys.number("embedding_scale", 0.0) or 1.0,
        "residual_multiplier": keys.number("residual_scale", 0.0) or 1.0,
        "attention_multiplier": keys.number("attention.scale", 0.0) or sizes["head_dim"] ** -0.5,
        "logits_scaling": keys.number("logit_scale", 0.0) or 1.0,
    }


FAMILY = replace(
    LLAMA,
    name="Granite",
    model_type="granite",
    class_name="GraniteForCausalLM",
    models="Granite 3.x",
    about="multipliers in the config",
    divisible=(),
    fixed_scale=True,
    residual_multiplier="residual_multiplier",
    logit_divisor="logits_scaling",
    gguf=Gguf(
        "granite",
        NAMED_USUAL,
        pairs=TURNED,
        biases=("attention_bias", "mlp_bias"),
        factors=True,
        write=_write,
        read=_read,
    ),
)
