"""Gemma 3, text-only models: Gemma 2 without soft caps, with norms over each head of queries and keys."""

from dataclasses import replace
from functools import partial
from typing import Any

from prunus.models.families.gemma2 import FAMILY as GEMMA2
from prunus.models.families.gemma2 import NAMES, none_slides, query_factor, read_layers, read_scale, write_windows
from prunus.models.families.gguf import Config, Gguf, KeyReader, Required, Sizes
from prunus.models.families.parts import HEAD_NORMS, NAMED_HEAD_NORMS
from prunus.models.families.rotary import Rotary

_LARGEST = 62  # layers of the 27B model
_ROTARY = Rotary(theta=1e6, sliding_theta=1e4)


def _sliding_but_every_sixth(layer: int, config: Config) -> str:
    period = config.get("sliding_window_pattern") or 6
    return "sliding_attention" if (layer + 1) % period else "full_attention"


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    theta = keys.number("rope.freq_base_swa", _ROTARY.sliding_theta)
    sliding = {"rope_type": "default", "rope_theta": theta}
    return {
        "layer_types": read_layers(_sliding_but_every_sixth, keys, sizes["num_hidden_layers"]),
        "query_pre_attn_scalar": read_scale(_LARGEST, keys, sizes),
        "sliding_window": keys.whole("attention.sliding_window"),
        "rope_parameters": {"full_attention": config["rope_parameters"], "sliding_attention": sliding},
    }


FAMILY = replace(
    GEMMA2,
    name="Gemma 3",
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    models="Gemma 3 270M and 1B",
    about="as Gemma 2, and norms over q and k",
    layered={**GEMMA2.layered, **HEAD_NORMS},
    lists={"layer_types": _sliding_but_every_sixth},
    rotary=_ROTARY,
    query_norm="self_attn.q_norm",
    gguf=Gguf(
        "gemma3",
        {**NAMES, **NAMED_HEAD_NORMS},
        windows=True,
        tied=True,
        activations=("gelu_pytorch_tanh",),
        required=(Required("final_logit_softcapping", value=None), Required("attn_logit_softcapping", value=None)),
        query_factor=partial(query_factor, _LARGEST),
        layer_fault=none_slides,
        write=partial(write_windows, _sliding_but_every_sixth, _ROTARY),
        read=_read,
    ),
)
