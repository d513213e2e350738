"""LFM2 and LFM2.5, by Liquid: short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import ModelError
from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf, KeyReader, Sizes
from prunus.models.families.parts import LAYER
from prunus.models.families.rotary import Rotary

_CONV, _ATTENTION = "conv", "full_attention"


def _kind(layer: int, config: Mapping[str, Any]) -> str:
    indices = config.get("full_attn_idxs")
    return _ATTENTION if indices is None or layer in indices else _CONV


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The number of neurons that transformers derives from `intermediate_size`, in its place; and older names."""
    result = dict(config)
    for old, new in (("block_ff_dim", "intermediate_size"), ("tie_embedding", "tie_word_embeddings")):
        if old in result:
            result[new] = result.pop(old)
    size, unit = result.get("intermediate_size", 12288), result.get("block_multiple_of", 256)
    factor = result.get("block_ffn_dim_multiplier", 1.0)
    adjusted = result.setdefault("block_auto_adjust_ff_dim", True)
    if adjusted is True and type(size) is type(unit) is int and unit > 0 and isinstance(factor, int | float):
        wide = int(factor * int(2 * size / 3))
        result |= {"intermediate_size": -(-wide // unit) * unit, "block_auto_adjust_ff_dim": False}
    return result


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    kinds = config.get("layer_types") or [_kind(layer, config) for layer in range(sizes["num_hidden_layers"])]
    groups = sizes["num_key_value_heads"]
    return {
        "attention.head_count_kv": [groups if kind == _ATTENTION else 0 for kind in kinds],
        "shortconv.l_cache": sizes["conv_kernel"],
    }


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    groups = keys.take("attention.head_count_kv", sizes["num_key_value_heads"])
    layers = sizes["num_hidden_layers"]
    groups = groups if isinstance(groups, list) else [groups] * layers
    if len(groups) != layers or not set(groups) <= {0, sizes["num_key_value_heads"]}:
        raise ModelError(
            f"{keys.where}: {keys.prefix}attention.head_count_kv is {groups!s:.80}; expected one number of KV heads "
            f"for each of {layers} layers, the same in all, or 0 in layers of short convolutions"
        )
    return {
        "layer_types": [_ATTENTION if count else _CONV for count in groups],
        "conv_L_cache": keys.whole("shortconv.l_cache"),
        "block_auto_adjust_ff_dim": False,
    }


FAMILY = Family(
    name="LFM2",
    model_type="lfm2",
    class_name="Lfm2ForCausalLM",
    models="LFM2 350M, 700M, 1.2B and 2.6B, LFM2.5 1.2B",
    about="short convolutions, and attention in some layers; norms over each head of q and k",
    layer=LAYER,
    shared={
        "model.embed_tokens.weight": "vocab hidden",
        "model.embedding_norm.weight": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "operator_norm.weight": "hidden",
        "conv.in_proj.weight": "(3 conv) hidden in conv",
        "conv.in_proj.bias": "(3 conv) in conv if conv_bias",
        "conv.conv.weight": "conv 1 kernel in conv",
        "conv.conv.bias": "conv in conv if conv_bias",
        "conv.out_proj.weight": "hidden conv in conv",
        "conv.out_proj.bias": "hidden in conv if conv_bias",
        "self_attn.q_proj.weight": "(heads head_dim) hidden in full_attention",
        "self_attn.k_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "self_attn.v_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "self_attn.q_layernorm.weight": "head_dim in full_attention",
        "self_attn.k_layernorm.weight": "head_dim in full_attention",
        "self_attn.out_proj.weight": "hidden (heads head_dim) in full_attention",
        "ffn_norm.weight": "hidden",
        "feed_forward.w1.weight": "mlp hidden",
        "feed_forward.w3.weight": "mlp hidden",
        "feed_forward.w2.weight": "hidden mlp",
    },
    keys={"conv_kernel": ("conv_L_cache",)},
    multiples={"conv_channels": ("hidden_size", "", 1)},
    pattern="layer_types",
    lists={"layer_types": _kind},
    states={"conv": ("conv kernel",)},
    plain=_plain,
    pattern_sources=("full_attn_idxs",),
    flags={"conv_bias": False, "tie_word_embeddings": True},
    defaults={"num_key_value_heads": lambda _: 8, "conv_kernel": lambda _: 3},
    feeds={
        "operator_norm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "conv.in_proj"),
        "ffn_norm": ("feed_forward.w1", "feed_forward.w3"),
        "model.embedding_norm": ("lm_head",),
    },
    query_norm="self_attn.q_layernorm",
    rotary=Rotary(theta=1e6),
    epsilon_key="norm_eps",
    epsilon=1e-5,
    gguf=Gguf(
        "lfm2",
        {
            "model.embed_tokens": "token_embd",
            "model.embedding_norm": "token_embd_norm",
            "lm_head": "output",
            "operator_norm": "attn_norm",
            "conv.in_proj": "shortconv.in_proj",
            "conv.conv": "shortconv.conv",
            "conv.out_proj": "shortconv.out_proj",
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.q_layernorm": "attn_q_norm",
            "self_attn.k_layernorm": "attn_k_norm",
            "self_attn.out_proj": "attn_output",
            "ffn_norm": "ffn_norm",
            "feed_forward.w1": "ffn_gate",
            "feed_forward.w3": "ffn_up",
            "feed_forward.w2": "ffn_down",
        },
        square=True,
        write=_write,
        read=_read,
    ),
)
