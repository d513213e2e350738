"""Qwen3.5, dense, its text model: Gated DeltaNet in three of four layers, and attention with gates in the fourth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import ModelError
from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.parts import (
    EMBEDDINGS,
    GATED_MLP,
    LAYER,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_HEAD_NORMS,
    NAMED_MLP,
    PRE_NORMS,
    TO_HEAD,
)
from prunus.models.families.rotary import Rotary

_LINEAR, _ATTENTION = "linear_attention", "full_attention"
_INTERVAL = 4
_SECTIONS = [11, 11, 10]  # of rotary pairs among time, height and width, which are equal in text
_ROTARY = Rotary(share=0.25, partial=True)
_QKV = "(linear_keys linear_key_dim)+(linear_keys linear_key_dim)+(linear_values linear_value_dim)"
_VALUES = "(linear_values linear_value_dim)"
_HEADS = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")


def _kind(layer: int, config: Mapping[str, Any]) -> str:
    return _LINEAR if (layer + 1) % config.get("full_attention_interval", _INTERVAL) else _ATTENTION


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    kinds = config.get("layer_types") or [_kind(layer, config) for layer in range(sizes["num_hidden_layers"])]
    rope = {"partial_rotary_factor": config.get("partial_rotary_factor", _ROTARY.share)}
    rope |= config.get("rope_scaling") or config.get("rope_parameters") or {}
    pairs = int(sizes["head_dim"] * rope["partial_rotary_factor"]) // 2
    sections = rope.get("mrope_section", _SECTIONS)
    return {
        "attention.recurrent_layers": [kind == _LINEAR for kind in kinds],
        "full_attention_interval": _INTERVAL,
        "rope.dimension_sections": [*sections, 0] if sum(sections) == pairs else [pairs, 0, 0, 0],
        "ssm.conv_kernel": sizes["conv_kernel"],
        "ssm.state_size": sizes["linear_key_head_dim"],
        "ssm.group_count": sizes["linear_num_key_heads"],
        "ssm.time_step_rank": sizes["linear_num_value_heads"],
        "ssm.inner_size": sizes["linear_num_value_heads"] * sizes["linear_value_head_dim"],
    }


def _unequal(config: Mapping[str, Any]) -> str | None:
    keys, values = (config.get(f"linear_{one}_head_dim", 128) for one in ("key", "value"))
    if keys == values:
        return None
    return f"linear_key_head_dim is {keys}, linear_value_head_dim {values}; llama.cpp's qwen35 needs them to be equal"


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    layers, interval = sizes["num_hidden_layers"], keys.whole("full_attention_interval", _INTERVAL) or _INTERVAL
    regular = [(layer + 1) % interval != 0 for layer in range(layers)]
    recurrent = keys.take("attention.recurrent_layers", regular)
    if not isinstance(recurrent, list) or len(recurrent) != layers:
        raise ModelError(
            f"{keys.where}: {keys.prefix}attention.recurrent_layers is {recurrent!s:.80}; expected {layers} values"
        )
    keys.take("rope.dimension_sections")
    keys.only("nextn_predict_layers", 0)
    values, inner = keys.whole("ssm.time_step_rank"), keys.whole("ssm.inner_size")
    if not values or inner % values:
        raise ModelError(f"{keys.where}: {keys.prefix}ssm.inner_size is {inner}, which {values} heads cannot share")
    return {
        "layer_types": [_LINEAR if one else _ATTENTION for one in recurrent],
        "linear_conv_kernel_dim": keys.whole("ssm.conv_kernel"),
        "linear_key_head_dim": keys.whole("ssm.state_size"),
        "linear_num_key_heads": keys.whole("ssm.group_count"),
        "linear_num_value_heads": values,
        "linear_value_head_dim": inner // values,
    }


FAMILY = Family(
    name="Qwen3.5",
    model_type="qwen3_5_text",
    class_name="Qwen3_5ForCausalLM",
    models="the text model of Qwen3.5 and 3.6, dense",
    about="Gated DeltaNet in three of four layers; gates of attention, norms over each head of q and k, part of a head "
    "rotated, gains stored minus 1",
    layer=LAYER,
    shared=EMBEDDINGS,
    layered={
        "input_layernorm.weight": "hidden",
        "linear_attn.in_proj_qkv.weight": f"{_QKV} hidden in linear_attention",
        "linear_attn.in_proj_z.weight": f"{_VALUES} hidden in linear_attention",
        "linear_attn.in_proj_b.weight": "linear_values hidden in linear_attention",
        "linear_attn.in_proj_a.weight": "linear_values hidden in linear_attention",
        "linear_attn.conv1d.weight": f"{_QKV} 1 kernel in linear_attention",
        "linear_attn.dt_bias": "linear_values in linear_attention",
        "linear_attn.A_log": "linear_values in linear_attention",
        "linear_attn.norm.weight": "linear_value_dim in linear_attention",
        "linear_attn.out_proj.weight": f"hidden {_VALUES} in linear_attention",
        "self_attn.q_proj.weight": "(heads 2 head_dim) hidden in full_attention",
        "self_attn.q_proj.bias": "(heads 2 head_dim) in full_attention if attention_bias",
        "self_attn.k_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "self_attn.k_proj.bias": "(kv_heads head_dim) in full_attention if attention_bias",
        "self_attn.v_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "self_attn.v_proj.bias": "(kv_heads head_dim) in full_attention if attention_bias",
        "self_attn.o_proj.weight": "hidden (heads head_dim) in full_attention",
        "self_attn.o_proj.bias": "hidden in full_attention if attention_bias",
        "self_attn.q_norm.weight": "head_dim in full_attention",
        "self_attn.k_norm.weight": "head_dim in full_attention",
        "post_attention_layernorm.weight": PRE_NORMS["post_attention_layernorm.weight"],
        **GATED_MLP,
    },
    keys={"conv_kernel": ("linear_conv_kernel_dim",), **{size: (size,) for size in _HEADS}},
    pattern="layer_types",
    pattern_sources=("full_attention_interval",),
    lists={"layer_types": _kind},
    states={_LINEAR: (f"{_QKV} kernel", "linear_values linear_key_dim linear_value_dim")},
    ignored=("mtp.",),
    resets={"mtp_num_hidden_layers": 0},
    flags={"attention_bias": False, "tie_word_embeddings": False},
    defaults={
        "head_dim": lambda _: 256,
        "num_key_value_heads": lambda _: 4,
        "conv_kernel": lambda _: 4,
        "linear_num_key_heads": lambda _: 16,
        "linear_num_value_heads": lambda _: 32,
        "linear_key_head_dim": lambda _: 128,
        "linear_value_head_dim": lambda _: 128,
    },
    gain_offset=1.0,
    plain_gains=("linear_attn.norm",),
    feeds={
        "input_layernorm": (
            "linear_attn.in_proj_qkv",
            "linear_attn.in_proj_z",
            "linear_attn.in_proj_b",
            "linear_attn.in_proj_a",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
        ),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        **TO_HEAD,
    },
    query_norm="self_attn.q_norm",
    rotary=_ROTARY,
    gguf=Gguf(
        "qwen35",
        {
            **NAMED_EMBEDDINGS,
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "post_attention_norm",
            "linear_attn.in_proj_qkv": "attn_qkv",
            "linear_attn.in_proj_z": "attn_gate",
            "linear_attn.in_proj_b": "ssm_beta",
            "linear_attn.in_proj_a": "ssm_alpha",
            "linear_attn.conv1d": "ssm_conv1d",
            "linear_attn.dt_bias": "ssm_dt.bias",
            "linear_attn.A_log": "ssm_a",
            "linear_attn.norm": "ssm_norm",
            "linear_attn.out_proj": "ssm_out",
            **NAMED_ATTENTION,
            **NAMED_HEAD_NORMS,
            **NAMED_MLP,
        },
        tiled={"linear_values": "linear_keys"},
        decays=("linear_attn.A_log",),
        fault=_unequal,
        write=_write,
        read=_read,
    ),
)
