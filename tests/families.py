"""A tiny teacher of every family that has an axis table, in its real transformers class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from tests.tiny import made_once, save_tokenizer

COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-12,  # dead channels change the mean square that eps is added to; here that is below rounding
}
MIXTURE = {"num_experts_per_tok": 2, "num_experts": 6}
LATENT = {
    "num_experts_per_tok": 2,
    "n_routed_experts": 6,
    "moe_intermediate_size": 24,
    "intermediate_size": 20,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": None,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2, "tie_word_embeddings": True},
    "qwen3": {"attention_bias": True},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 6, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "phi3": {},
    "olmo2": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "olmo3": {"sliding_window": 6},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.5,
        }
    },
    "gemma": {"attention_bias": True},
    "seed_oss": {"attention_out_bias": True, "mlp_bias": True},
    "exaone4": {"sliding_window": 6, "sliding_window_pattern": 2},
    "cohere": {"layer_norm_eps": 1e-12, "logit_scale": 0.5},
    "cohere2": {"layer_norm_eps": 1e-12, "logit_scale": 0.5, "sliding_window": 6, "head_dim": None},
    "ernie4_5": {"use_bias": True},
    "glm": {},
    "glm4": {},
    "hunyuan_v1_dense": {"attention_bias": True},
    "arcee": {},
    "helium": {"attention_bias": True, "mlp_bias": True},
    "phi": {"layer_norm_eps": 1e-12},
    "stablelm": {"layer_norm_eps": 1e-12, "use_qkv_bias": True, "head_dim": None},
    "starcoder2": {"norm_epsilon": 1e-12},
    "cwm": {"sliding_window": 6, "mlp_bias": True},
    "gpt_neox": {"layer_norm_eps": 1e-12, "num_key_value_heads": None, "head_dim": None},
    "gpt2": {"layer_norm_epsilon": 1e-12, "n_inner": 24},
    "gptj": {"layer_norm_epsilon": 1e-12, "n_inner": 24, "rotary_dim": 4},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 32, "num_key_value_heads": None, "head_dim": None},
    "falcon": {"layer_norm_epsilon": 1e-12, "ffn_hidden_size": 24, "bias": True, "head_dim": None},
    "internlm3": {"attention_bias": True, "mlp_bias": True},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen3_moe": {**MIXTURE, "moe_intermediate_size": 24, "intermediate_size": 40},
    "qwen2_moe": {
        **MIXTURE,
        "moe_intermediate_size": 24,
        "intermediate_size": 40,
        "shared_expert_intermediate_size": 20,
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 3,
    },
    "glm4_moe": {
        "num_experts_per_tok": 2,
        "n_routed_experts": 6,
        "moe_intermediate_size": 24,
        "intermediate_size": 20,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
        "use_qk_norm": True,
        "attention_bias": True,
        "n_group": 2,
        "topk_group": 1,
        "routed_scaling_factor": 1.5,
    },
    "ernie4_5_moe": {
        "moe_k": 2,
        "moe_num_experts": 6,
        "moe_intermediate_size": 24,
        "intermediate_size": 20,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
    },
    "hunyuan_v1_moe": {"num_experts": 6, "moe_topk": 2},
    "gpt_oss": {
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "sliding_window": 6,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "truncate": False,
        },
    },
    "granitemoe": {
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "lfm2": {
        "norm_eps": 1e-12,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3],
    },
    "qwen3_5_text": {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 6,
        "linear_conv_kernel_dim": 3,
        "full_attention_interval": 2,
    },
    "nemotron_h": {
        "layer_norm_epsilon": 1e-12,
        "layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 6,
        "n_groups": 2,
        "ssm_state_size": 8,
        "conv_kernel": 3,
    },
    "deepseek_v3": {**LATENT, "n_group": 2, "topk_group": 2, "q_lora_rank": 12},
    "deepseek_v2": {**LATENT, "q_lora_rank": None, "routed_scaling_factor": 1.5},
    "olmoe": {**MIXTURE, "num_key_value_heads": 4, "head_dim": None},
}
RELATIVES = {
    "olmo3", "ministral3", "seed_oss", "exaone4", "cohere2", "ernie4_5", "glm", "hunyuan_v1_dense", "arcee", "helium",
    "stablelm", "starcoder2", "cwm", "internlm3", "deepseek_v2",
}  # fmt: skip
DISTINCT = [name for name in SPECIAL if name not in RELATIVES]
"""Families of all structures, for steps that neither cut nor export: relatives would tell them nothing new."""
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


def make_teacher(folder: Path, model_type: str) -> Path:
    """Save a teacher of that family with random weights, gains and biases."""
    folder.mkdir(parents=True, exist_ok=True)

    def make() -> None:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_of(model_type))
        gain = 1.0 - FAMILIES[model_type].gain_offset
        with torch.no_grad():
            for name, parameter in weights_of(model):
                noise = torch.randn_like(parameter) * 0.3
                parameter.copy_(noise + gain if parameter.ndim == 1 and name.endswith("weight") else noise)
        model.save_pretrained(folder)
        save_tokenizer(folder, 300)

    return made_once(folder, f"{model_type} {SPECIAL[model_type]}", make)


def skip_without(model_type: str) -> None:
    """Skip a test of a family that the installed transformers does not have yet."""
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")


def weights_of(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Parameters, and the buffers that are stored with them, such as biases of routers."""
    parameters, buffers = list(model.named_parameters()), dict(model.named_buffers())
    return [*parameters, *((name, buffers[name]) for name in model.state_dict() if name in buffers)]


def config_of(model_type: str) -> Any:
    """Its config, as transformers has it."""
    skip_without(model_type)
    options = {**COMMON, **SPECIAL[model_type]}
    if model_type in ("gpt2", "gptj"):
        options = {
            GPT2_NAMES.get(k, k): v
            for k, v in options.items()
            if k not in ("intermediate_size", "head_dim", "num_key_value_heads", "rms_norm_eps")
        }
    given = {k: v for k, v in options.items() if v is not None or k in ("sliding_window", "q_lora_rank")}
    return AutoConfig.for_model(model_type, **given)


def square_cut(shape: Shape) -> tuple[dict[str, Any], dict[str, int]]:
    """Of a family whose heads go with its channels: the units of the last KV group, and the options that cut them.

    Of a single group, the last head alone: `zero_scores_of_dead_heads` makes its score tell that it is dead.
    """
    heads, groups, layers = shape.num_attention_heads, shape.num_key_value_heads, shape.num_hidden_layers
    if groups == 1:
        left = heads - 1
        return {"heads": [[left]] * layers}, {"num_attention_heads": left, "hidden_size": left * shape.head_dim}
    left = heads - heads // groups
    dead = {"heads": [list(range(left, heads))] * layers, "kv_heads": [[groups - 1]] * layers}
    options = {"num_attention_heads": left, "hidden_size": left * shape.head_dim}
    return dead, options if groups == heads else {**options, "num_key_value_heads": groups - 1}


def kill(folder: Path, dead: dict[str, Any]) -> None:
    """Zero members of axes in every weight that runs over them.

    Args:
        folder: The teacher's; its weights are rewritten.
        dead: For each axis its dead members; for axes of a layer, a list of them for each layer.
    """
    teacher = ModelFolder(folder)
    sizes, family = teacher.shape.sizes(), teacher.family
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        place = family.place(name)
        assert place is not None
        offset = family.offset_of(place)
        np.add(tensor, offset, out=tensor)
        if "hidden" in dead and family.layer_norm:
            centre(tensor, place.weight, dead["hidden"], family.conv1d)
        for d, dim in enumerate(place.weight.dims):
            start = 0
            for segment in dim:
                shape = [item if isinstance(item, int) else sizes[item] for item in segment]
                numbers = np.arange(int(np.prod(shape))).reshape(shape)
                for position, axis in enumerate(segment):
                    if axis in dead:
                        members = dead[axis] if axis in ("hidden", "head_dim") else dead[axis][place.layer]
                        gone = np.take(numbers, members, axis=position).reshape(-1) + start
                        np.moveaxis(tensor, d + place.weight.stacked, 0)[gone] = 0
                start += numbers.size
        np.subtract(tensor, offset, out=tensor)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def centre(tensor: np.ndarray, weight: Any, dead: list[int], conv1d: bool) -> None:
    """Take the living channels' mean out of what is written to the stream, so that LayerNorm finds none to take."""
    rows_are_tokens = weight.has("vocab") or weight.has("positions")
    writes = 1 if len(weight.dims) == 2 and (conv1d or rows_are_tokens) else 0
    if weight.dims[writes] == (("hidden",),):
        living = [i for i in range(tensor.shape[writes]) if i not in dead]
        moved = np.moveaxis(tensor, writes, 0)
        moved[living] -= moved[living].mean(axis=0)
