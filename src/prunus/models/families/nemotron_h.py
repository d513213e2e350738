"""Nemotron-H, Nemotron Nano 2: one mixer in each layer, of Mamba-2, attention or an MLP."""

from __future__ import annotations

from typing import Any

from prunus.models.families.family import Family

_KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
_OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
_RENAMED = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_expand": "expand",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_max": "time_step_max",
    "mamba_dt_limit": "time_step_limit",
    "mamba_dt_init_floor": "time_step_floor",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
}
_INPUTS = "(ssm_heads ssm_head_dim)+(ssm_groups state)+(ssm_groups state)"


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The kind of each layer as a list, in transformers' words, and newer names."""
    result = {_RENAMED.get(key, key): value for key, value in config.items() if key not in _RENAMED.values()}
    result |= {key: value for key, value in config.items() if key in _RENAMED.values() and key not in result}
    for key in ("hybrid_override_pattern", "layer_types"):
        value = result.pop(key, None)
        if value and result.get("layers_block_type") is None:
            result["layers_block_type"] = list(value)
    kinds = result.get("layers_block_type")
    if isinstance(kinds, list):
        result["layers_block_type"] = [_KINDS.get(str(kind), _OLDER.get(str(kind), kind)) for kind in kinds]
        result["num_hidden_layers"] = len(kinds)  # transformers' number, whatever the key says
    return result


FAMILY = Family(
    name="Nemotron-H",
    model_type="nemotron_h",
    class_name="NemotronHForCausalLM",
    models="Nemotron-H 4B, 8B and 47B, Nemotron Nano 9B and 12B v2",
    about="layers of Mamba-2, of attention without positions, and of an MLP without gate, after one norm each",
    layer="backbone.layers.{}.",
    renamed=("backbone.", "model."),
    shared={
        "backbone.embeddings.weight": "vocab hidden",
        "backbone.norm_f.weight": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "norm.weight": "hidden",
        "mixer.in_proj.weight": f"(ssm_heads ssm_head_dim)+{_INPUTS}+ssm_heads hidden in linear_attention",
        "mixer.in_proj.bias": f"(ssm_heads ssm_head_dim)+{_INPUTS}+ssm_heads in linear_attention if use_bias",
        "mixer.conv1d.weight": f"{_INPUTS} 1 kernel in linear_attention",
        "mixer.conv1d.bias": f"{_INPUTS} in linear_attention if use_conv_bias",
        "mixer.dt_bias": "ssm_heads in linear_attention",
        "mixer.A_log": "ssm_heads in linear_attention",
        "mixer.D": "ssm_heads in linear_attention",
        "mixer.norm.weight": "(ssm_heads ssm_head_dim) in linear_attention",
        "mixer.out_proj.weight": "hidden (ssm_heads ssm_head_dim) in linear_attention",
        "mixer.out_proj.bias": "hidden in linear_attention if use_bias",
        "mixer.q_proj.weight": "(heads head_dim) hidden in full_attention",
        "mixer.k_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "mixer.v_proj.weight": "(kv_heads head_dim) hidden in full_attention",
        "mixer.o_proj.weight": "hidden (heads head_dim) in full_attention",
        "mixer.up_proj.weight": "mlp hidden in mlp",
        "mixer.up_proj.bias": "mlp in mlp if mlp_bias",
        "mixer.down_proj.weight": "hidden mlp in mlp",
        "mixer.down_proj.bias": "hidden in mlp if mlp_bias",
    },
    keys={
        "mamba_n_groups": ("n_groups",),
        "conv_kernel": ("conv_kernel",),
        **{size: (size,) for size in ("mamba_num_heads", "mamba_head_dim", "ssm_state_size")},
    },
    pattern="layers_block_type",
    lists={"layers_block_type": lambda layer, _: ("linear_attention", "moe", "full_attention", "mlp")[layer % 4]},
    states={"linear_attention": (f"{_INPUTS} kernel", "ssm_heads ssm_head_dim state")},
    plain=_plain,
    ignored=("mtp.",),
    resets={"num_nextn_predict_layers": 0},
    flags={"use_bias": False, "use_conv_bias": True, "mlp_bias": False, "tie_word_embeddings": False},
    requires={"attention_bias": False},
    defaults={
        "head_dim": lambda _: 128,
        "num_key_value_heads": lambda _: 8,
        "mamba_num_heads": lambda _: 128,
        "mamba_head_dim": lambda _: 64,
        "mamba_n_groups": lambda _: 8,
        "ssm_state_size": lambda _: 128,
        "conv_kernel": lambda _: 4,
    },
    activation_key="mlp_hidden_act",
    epsilon_key="layer_norm_epsilon",
    epsilon=1e-5,
    grouped_norms={"mixer.norm": "ssm_groups"},
    feeds={
        "norm": ("mixer.in_proj", "mixer.q_proj", "mixer.k_proj", "mixer.v_proj", "mixer.up_proj"),
        "backbone.norm_f": ("lm_head",),
    },
    rotary=None,
)
