"""Gemma 3, the models of text alone: a Gemma 2 without soft caps, with norms over each head of queries and keys."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gemma2 import FAMILY as GEMMA2
from prunus.models.families.parts import HEAD_NORMS


def _sliding_but_every_sixth(layer: int, config: Mapping[str, Any]) -> str:
    period = config.get("sliding_window_pattern") or 6
    return "sliding_attention" if (layer + 1) % period else "full_attention"


FAMILY = replace(
    GEMMA2,
    name="Gemma 3",
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    layered={**GEMMA2.layered, **HEAD_NORMS},
    lists={"layer_types": _sliding_but_every_sixth},
)
