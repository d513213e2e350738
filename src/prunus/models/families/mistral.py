"""Mistral (7B, NeMo, Small): a Llama without biases; if config.json names a window, all layers use it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, GATED_MLP, NAMED_USUAL, PRE_NORMS, TURNED


def _is_no_llama(keys: Mapping[str, Any]) -> bool:
    """Whether heads do not divide hidden_size, which transformers requires for Llama."""
    heads = keys["attention.head_count"]
    return bool(not keys.get("expert_count") and heads and keys["embedding_length"] % heads)


FAMILY = replace(
    LLAMA,
    name="Mistral",
    model_type="mistral",
    class_name="MistralForCausalLM",
    models="Mistral 7B, NeMo, Small",
    about="",
    layered={**PRE_NORMS, **ATTENTION, **GATED_MLP},
    divisible=(),
    window=4096,
    slides=True,
    gguf=Gguf("llama", NAMED_USUAL, pairs=TURNED, factors=True, recognised=_is_no_llama),
)
