"""Ministral 3: a Mistral whose queries grow with their position, once for each training context."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import Config, Gguf, KeyReader, Sizes
from prunus.models.families.mistral import FAMILY as MISTRAL
from prunus.models.families.parts import NAMED_USUAL, TURNED, head_dim_or
from prunus.models.families.rotary import Rotary
from prunus.models.positions import rope_parameters

_GROWTH = "llama_4_scaling_beta"  # b in 1 + b log(1 + floor(position / training context)), the factor of queries


def _default(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
        "max_position_embeddings": config.get("max_position_embeddings", 262144), "beta_fast": 32.0, "beta_slow": 1.0,
        "mscale_all_dim": 1.0, "mscale": 1.0, _GROWTH: 0.1,
    }  # fmt: skip


_ROTARY = Rotary(default=_default)


def _fault(config: Config) -> str | None:
    rope = rope_parameters(config, _ROTARY)
    if rope["rope_type"] == "yarn" and rope.get(_GROWTH) is not None:
        return None
    return f"rotary positions without yarn or {_GROWTH}, which llama.cpp's mistral3 needs"


def _write(config: Config, sizes: Sizes) -> dict[str, float]:
    return {"attention.temperature_scale": float(rope_parameters(config, _ROTARY)[_GROWTH])}


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    growth = keys.number("attention.temperature_scale", 0.0)
    return {"rope_parameters": {**config["rope_parameters"], _GROWTH: growth}}


FAMILY = replace(
    MISTRAL,
    name="Ministral 3",
    model_type="ministral3",
    class_name="Ministral3ForCausalLM",
    models="the text model of Ministral 3",
    about="queries that grow with the position, yarn by default",
    defaults={"head_dim": head_dim_or(128)},
    rotary=_ROTARY,
    epsilon=1e-5,
    window=None,
    gguf=Gguf("mistral3", NAMED_USUAL, pairs=TURNED, fault=_fault, write=_write, read=_read),
    onnx=False,
)
