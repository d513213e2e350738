"""SmolLM3: a Llama in which every fourth layer has no rotary positions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import NAMED_USUAL, TIED, TURNED
from prunus.models.families.rotary import Rotary

_EVERY = 4  # the period of layers without rotary positions; fixed in llama.cpp


def _rope_but_every(layer: int, config: Mapping[str, Any]) -> int:
    """Whether a layer has rotary positions: all but every fourth."""
    return int((layer + 1) % (config.get("no_rope_layer_interval") or _EVERY) != 0)


def _sliding_without_rope(layer: int, config: Mapping[str, Any]) -> str:
    """If sliding is enabled, the layers without rotary positions slide."""
    ropes = config.get("no_rope_layers")
    rope = ropes[layer] if ropes else _rope_but_every(layer, config)
    on = config.get("use_sliding_window", False) and config.get("sliding_window") is not None
    return "sliding_attention" if on and not rope else "full_attention"


def _layer_fault(config: Mapping[str, Any]) -> str | None:
    ropes = config.get("no_rope_layers")
    if not ropes or list(map(int, ropes)) == [_rope_but_every(layer, {}) for layer in range(len(ropes))]:
        return None
    return (
        f"no_rope_layers is {ropes}, but llama.cpp's smollm3 assumes every {_EVERY}th layer; drop layers in blocks "
        f"of {_EVERY}, or use the folder"
    )


FAMILY = replace(
    LLAMA,
    name="SmolLM3",
    model_type="smollm3",
    class_name="SmolLM3ForCausalLM",
    models="SmolLM3",
    about="layers without rotary positions",
    flags=TIED,
    divisible=(),
    lists={"no_rope_layers": _rope_but_every, "layer_types": _sliding_without_rope},
    rotary=Rotary(theta=2e6),
    gguf=Gguf("smollm3", NAMED_USUAL, pairs=TURNED, layer_fault=_layer_fault),
)
