"""Hunyuan-A13B: a Hunyuan with experts, and a shared one of the same width, in every layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.models.families.gguf import KeyReader, Sizes
from prunus.models.families.hunyuan_v1_dense import FAMILY as HUNYUAN
from prunus.models.families.parts import EXPERTS, GATED_MLP, NAMED_EXPERTS, STACKED, TO_ATTENTION, TO_HEAD

assert HUNYUAN.gguf is not None

_EXPERTS = {key.replace("mlp.gate.", "mlp.gate.wg."): line for key, line in EXPERTS.items()}
_SHARED = {key.replace("mlp.", "mlp.shared_mlp."): line.replace("mlp", "shared") for key, line in GATED_MLP.items()}
_READERS = (
    "mlp.gate.wg",
    "mlp.experts.{experts}.gate_proj",
    "mlp.experts.{experts}.up_proj",
    "mlp.shared_mlp.gate_proj",
    "mlp.shared_mlp.up_proj",
)
_NAMED = {key.replace("mlp.gate", "mlp.gate.wg"): name for key, name in NAMED_EXPERTS.items()} | {
    "mlp.shared_mlp.gate_proj": "ffn_gate_shexp",
    "mlp.shared_mlp.up_proj": "ffn_up_shexp",
    "mlp.shared_mlp.down_proj": "ffn_down_shexp",
}


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, int]:
    return {
        "expert_feed_forward_length": sizes["intermediate_size"],
        "expert_shared_feed_forward_length": sizes["shared_expert_intermediate_size"],
        "expert_shared_count": 1,
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    keys.only("expert_shared_feed_forward_length", sizes["intermediate_size"])
    keys.only("expert_shared_count", 1)
    return {}


FAMILY = replace(
    HUNYUAN,
    name="Hunyuan MoE",
    model_type="hunyuan_v1_moe",
    class_name="HunYuanMoEV1ForCausalLM",
    models="Hunyuan-A13B",
    about="as Hunyuan; experts, and a shared one, in every layer",
    layered={**{key: line for key, line in HUNYUAN.layered.items() if key not in GATED_MLP}, **_EXPERTS, **_SHARED},
    keys={
        "num_experts": ("num_experts", "num_local_experts"),
        "num_experts_per_tok": ("moe_topk", "num_experts_per_tok"),
        "intermediate_size": ("intermediate_size", "moe_intermediate_size"),
    },
    multiples={"shared_expert_intermediate_size": ("intermediate_size", "", 1)},
    listed=("num_experts", "num_experts_per_tok", "intermediate_size"),
    experts=STACKED,
    absent=(),
    defaults={"num_experts": lambda _: 1, "num_experts_per_tok": lambda _: 1},
    feeds={**TO_ATTENTION, "post_attention_layernorm": _READERS, **TO_HEAD},
    gguf=replace(
        HUNYUAN.gguf,
        architecture="hunyuan-moe",
        names={key: name for key, name in HUNYUAN.gguf.names.items() if f"{key}.weight" not in GATED_MLP} | _NAMED,
        write=_write,
        read=_read,
    ),
)
