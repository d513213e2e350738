"""OLMo 3: an OLMo 2 in which three of four layers slide, and positions are scaled in the others only."""

from dataclasses import replace
from functools import partial
from typing import Any

from prunus.models.families.gemma2 import none_slides, read_layers, write_windows
from prunus.models.families.gguf import Config, KeyReader, Sizes
from prunus.models.families.olmo2 import FAMILY as OLMO2
from prunus.models.families.rotary import Rotary
from prunus.models.positions import rope_parameters

_EVERY = 4
_WINDOW = 4096
_ROTARY = Rotary(theta=5e5, sliding_theta=5e5, sliding_key="")


def sliding_but_every_fourth(layer: int, config: Config) -> str:
    """The kind of a layer's attention: full in every fourth layer, else sliding."""
    return "sliding_attention" if (layer + 1) % (config.get("sliding_window_pattern") or _EVERY) else "full_attention"


def _fault(config: Config) -> str | None:
    full, sliding = (rope_parameters(config, _ROTARY, kind) for kind in ("full_attention", "sliding_attention"))
    if sliding["rope_type"] == "default" and sliding["rope_theta"] == full["rope_theta"]:
        return None
    return "sliding layers have positions of their own, but llama.cpp's olmo2 has one theta and scales full layers only"


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    rope = config["rope_parameters"]
    keys.only("rope.freq_base_swa", rope["rope_theta"])
    sliding = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    return {
        "layer_types": read_layers(sliding_but_every_fourth, keys, sizes["num_hidden_layers"]),
        "sliding_window": keys.whole("attention.sliding_window"),
        "rope_parameters": {"full_attention": rope, "sliding_attention": sliding},
    }


assert OLMO2.gguf is not None

FAMILY = replace(
    OLMO2,
    name="OLMo 3",
    model_type="olmo3",
    class_name="Olmo3ForCausalLM",
    models="OLMo 3",
    about="as OLMo 2, and sliding layers",
    lists={"layer_types": sliding_but_every_fourth},
    rotary=_ROTARY,
    window=_WINDOW,
    gguf=replace(
        OLMO2.gguf,
        windows=True,
        fault=_fault,
        layer_fault=none_slides,
        write=partial(write_windows, sliding_but_every_fourth, _ROTARY),
        read=_read,
        recognised=lambda keys: bool(keys.get("attention.sliding_window")),
    ),
)
