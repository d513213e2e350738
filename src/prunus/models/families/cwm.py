"""CWM: a Llama in which three of four layers slide."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, GATED_MLP, MLP_BIAS, PRE_NORMS, head_dim_or
from prunus.models.families.rotary import Rotary

_EVERY = 4


def _sliding_but_every_fourth(layer: int, config: Mapping[str, Any]) -> str:
    return "sliding_attention" if layer % _EVERY else "full_attention"


def _default(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rope_theta": 1e6, "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    }  # fmt: skip


assert LLAMA.gguf is not None

FAMILY = replace(
    LLAMA,
    name="CWM",
    model_type="cwm",
    class_name="CwmForCausalLM",
    models="CWM",
    about="sliding layers",
    layered={**PRE_NORMS, **ATTENTION, **GATED_MLP, **MLP_BIAS},
    flags={"mlp_bias": False, "tie_word_embeddings": False},
    defaults={"head_dim": head_dim_or(128)},
    lists={"layer_types": _sliding_but_every_fourth},
    rotary=Rotary(theta=1e6, default=_default),
    epsilon=1e-5,
    window=8192,
    slides=True,
    gguf=replace(LLAMA.gguf, biases=("mlp_bias",), recognised=lambda _: False),  # a file of it is a Llama
    onnx=False,
)
