"""Cohere's Command R7B and Command A: three of four layers slide, and only these have positions."""

from dataclasses import replace
from typing import Any

from prunus.models.families.cohere import FAMILY as COHERE
from prunus.models.families.cohere import write_scale
from prunus.models.families.gemma2 import none_slides, read_layers, write_windows
from prunus.models.families.gguf import Config, KeyReader, Sizes
from prunus.models.families.olmo3 import sliding_but_every_fourth
from prunus.models.families.parts import WHOLE_HEADS
from prunus.models.families.rotary import Rotary

_ROTARY = Rotary(interleaved=True)


def _write(config: Config, sizes: Sizes) -> dict[str, Any]:
    return {**write_windows(sliding_but_every_fourth, _ROTARY, config, sizes), **write_scale(config, sizes)}


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    keys.only("rope.freq_base_swa", config["rope_parameters"]["rope_theta"])
    return {
        "logit_scale": keys.number("logit_scale"),
        "sliding_window": keys.whole("attention.sliding_window"),
        "layer_types": read_layers(sliding_but_every_fourth, keys, sizes["num_hidden_layers"]),
    }


assert COHERE.gguf is not None

FAMILY = replace(
    COHERE,
    name="Cohere 2",
    model_type="cohere2",
    class_name="Cohere2ForCausalLM",
    models="Command R7B, Command A",
    about="as Cohere; sliding layers, and full ones without positions",
    absent=("num_experts", "head_dim"),
    requires={},
    divisible=WHOLE_HEADS,
    square=True,
    lists={"layer_types": sliding_but_every_fourth},
    rotary=_ROTARY,
    window=4096,
    gguf=replace(
        COHERE.gguf,
        architecture="cohere2",
        windows=True,
        layer_fault=none_slides,
        write=_write,
        read=_read,
    ),
)
