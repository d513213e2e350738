"""EXAONE 4: an OLMo 2 with norms over each head; full layers have no positions where others slide."""

from dataclasses import replace
from typing import Any

from prunus.errors import ModelError
from prunus.models.families.gguf import Config, KeyReader, Sizes
from prunus.models.families.olmo2 import FAMILY as OLMO2
from prunus.models.families.parts import ATTENTION, GATED_MLP, HEAD_NORMS, POST_NORMS

_SLIDES_AT = 64  # layers of the 32B model, by which alone llama.cpp knows that three of four layers slide


def _sliding_by_pattern(layer: int, config: Config) -> str:
    period = config.get("sliding_window_pattern", 4) if config.get("sliding_window", 4096) is not None else 1
    return "sliding_attention" if (layer + 1) % period else "full_attention"


def _fault(config: Config) -> str | None:
    window, layers = config.get("sliding_window", 4096), config["num_hidden_layers"]
    if window is None and layers != _SLIDES_AT:
        return None
    return (
        f"sliding_window is {window} with {layers} layers, but llama.cpp's exaone4 slides at {_SLIDES_AT} layers and "
        "at no other number, whatever the file says. What works: the plain folder"
    )


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    layers = sizes["num_hidden_layers"]
    if layers == _SLIDES_AT:
        raise ModelError(f"{keys.where}: an EXAONE 4 of {layers} layers, of which three of four slide; not supported")
    return {"sliding_window": None, "layer_types": ["full_attention"] * layers}


assert OLMO2.gguf is not None

FAMILY = replace(
    OLMO2,
    name="EXAONE 4",
    model_type="exaone4",
    class_name="Exaone4ForCausalLM",
    models="EXAONE 4.0 1.2B and 32B",
    about="norms after the sublayers, norms over each head of q and k; full layers have no positions if others slide",
    layered={**ATTENTION, **HEAD_NORMS, **POST_NORMS, **GATED_MLP},
    flags={"tie_word_embeddings": False},
    lists={"layer_types": _sliding_by_pattern},
    window=4096,
    slides=True,
    gguf=replace(
        OLMO2.gguf,
        architecture="exaone4",
        untied=False,
        factors=True,
        layer_fault=_fault,
        read=_read,
    ),
)
