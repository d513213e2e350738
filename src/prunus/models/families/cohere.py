"""Cohere's Command R: attention and MLP in parallel, after one LayerNorm without bias; rotary pairs interleaved."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    GATED_MLP,
    IN_PARALLEL,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_MLP,
)
from prunus.models.families.rotary import Rotary

_SCALE = 0.0625


def write_scale(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The factor of the logits."""
    return {"logit_scale": float(config.get("logit_scale", _SCALE))}


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    return {"logit_scale": keys.number("logit_scale")}


FAMILY = replace(
    LLAMA,
    name="Cohere",
    model_type="cohere",
    class_name="CohereForCausalLM",
    models="Command R, Aya 23",
    about=(
        "LayerNorm without bias, attention beside the MLP after one norm, adjacent rotary pairs, a factor of the logits"
    ),
    layered={"input_layernorm.weight": "hidden", **ATTENTION, **ATTENTION_BIAS, **GATED_MLP},
    flags={"attention_bias": False, "tie_word_embeddings": True},
    requires={"use_qk_norm": False},
    divisible=(),
    layer_norm=True,
    feeds=IN_PARALLEL,
    logit_multiplier="logit_scale",
    rotary=Rotary(theta=5e5, interleaved=True),
    epsilon_key="layer_norm_eps",
    epsilon=1e-5,
    gguf=Gguf(
        "command-r",
        {**NAMED_EMBEDDINGS, "input_layernorm": "attn_norm", **NAMED_ATTENTION, **NAMED_MLP},
        square=True,
        tied=True,
        write=write_scale,
        read=_read,
    ),
    onnx=False,
)
