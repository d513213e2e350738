"""gpt-oss: stacked experts with biases and clamped gates, a sink in the attention of each head, sliding layers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.family import Experts
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, ATTENTION_BIAS, PRE_NORMS, TO_ATTENTION, TO_HEAD
from prunus.models.families.rotary import Rotary

_EXPERTS = {
    "self_attn.sinks": "heads",
    "mlp.router.weight": "experts hidden",
    "mlp.router.bias": "experts",
    "mlp.experts.gate_up_proj": "experts: hidden (mlp 2)",
    "mlp.experts.gate_up_proj_bias": "experts: (mlp 2)",
    "mlp.experts.down_proj": "experts: mlp hidden",
    "mlp.experts.down_proj_bias": "experts: hidden",
}


def _yarn(_: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip


def _sliding_every_second(layer: int, _: Mapping[str, Any]) -> str:
    return "full_attention" if layer % 2 else "sliding_attention"


FAMILY = replace(
    LLAMA,
    name="gpt-oss",
    model_type="gpt_oss",
    class_name="GptOssForCausalLM",
    models="gpt-oss 20B, 120B, dequantised",
    about="experts with biases, sinks in attention, sliding layers, yarn by default",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **_EXPERTS},
    flags={"attention_bias": True, "tie_word_embeddings": False},
    keys={
        "num_experts": ("num_local_experts", "num_experts"),
        "num_experts_per_tok": ("num_experts_per_tok", "experts_per_token"),
    },
    experts=Experts("mlp", "router", "experts", "gate_up_proj", "down_proj", transposed=True),
    absent=(),
    defaults={
        "head_dim": lambda _: 64,
        "num_experts": lambda _: 128,
        "num_experts_per_tok": lambda _: 4,
    },
    divisible=(),
    lists={"layer_types": _sliding_every_second},
    feeds={**TO_ATTENTION, "post_attention_layernorm": ("mlp.router", "mlp.experts.gate_up_proj"), **TO_HEAD},
    rotary=Rotary(theta=1.5e5, default=_yarn),
    epsilon=1e-5,
    window=128,
    gguf=None,
    onnx=False,
)
