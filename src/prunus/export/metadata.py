"""A model's config.json as llama.cpp keeps it, and what it has no word for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import RecipeError
from prunus.export.names import ARCHITECTURES, architecture_of
from prunus.export.positions import check_positions, rope_keys, trained_context
from prunus.models.positions import rope_parameters
from prunus.models.shape import Shape

Config = Mapping[str, Any]

ACTIVATIONS = {
    "gemma2": ("gelu_pytorch_tanh", "gelu"),  # transformers takes the second for the first in Gemma
    "gemma3_text": ("gelu_pytorch_tanh",),
    "gpt2": ("gelu_new",),
    "gpt_neox": ("gelu", "gelu_new", "gelu_fast"),
}
REQUIRED: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"norm_topk_prob": True},
    "olmoe": {"norm_topk_prob": False, "clip_qkv": None},
    "gemma3_text": {"final_logit_softcapping": None, "attn_logit_softcapping": None},
    "gpt_neox": {"attention_bias": True},
}
"""Values that llama.cpp takes for granted."""

DEFAULTS: dict[str, Any] = {"norm_topk_prob": False, "attention_bias": True}
"""What transformers takes them for where a config leaves them out."""

_RMS_EPSILON = dict.fromkeys(("mixtral", "olmo2", "olmoe", "phi3"), 1e-5)  # where a config has none; 1e-6 elsewhere
GEMMA2_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""The same, of the one family that has soft caps."""

_WINDOWS = dict.fromkeys(("mistral", "qwen2", "qwen3", "qwen3_moe"), 4096)  # the same

_NO_ROPE_EVERY = 4  # the period of SmolLM3's layers without rotary positions, fixed there


def check_model(config: Config, shape: Shape, where: str) -> None:
    """Refuse a model that llama.cpp would compute otherwise.

    Raises:
        RecipeError: Names what it is, and what would work.
    """
    check_shape(config, shape, where)
    check_layers(config, where)


def check_shape(config: Config, shape: Shape, where: str) -> None:
    """The same as far as it is known before layers are chosen.

    Args:
        config: The contents of config.json.
        shape: Its dimensions, or those that a student will have.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names what it is, and what would work.
    """
    kind = str(config["model_type"])
    there = architecture_of(kind, where)
    check_positions(config, shape, where, there.factors)
    if there.square and shape.hidden_size != shape.num_attention_heads * shape.head_dim:
        raise RecipeError(
            f"{where}: hidden_size is {shape.hidden_size}, and llama.cpp takes it for num_attention_heads x head_dim = "
            f"{shape.num_attention_heads * shape.head_dim} in {shape.family.name}; cut both alike, or use the folder"
        )
    if there.pairs and rope_parameters(config)["partial_rotary_factor"] != 1.0:
        raise RecipeError(f"{where}: heads are turned in part, and llama.cpp's {there.name} turns them whole")
    for flag in ("attention_bias", "mlp_bias"):
        if shape.flags.get(flag) and flag not in there.biases:
            raise RecipeError(f"{where}: {flag} is true, and llama.cpp's {there.name} has no such biases")
    if there.windows and not shape.flags["tie_word_embeddings"]:
        raise RecipeError(f"{where}: tie_word_embeddings is false, and llama.cpp's {there.name} ties them")
    for key, value in REQUIRED.get(kind, {}).items():
        if config.get(key, DEFAULTS.get(key)) != value:
            raise RecipeError(
                f"{where}: {key} is {config.get(key)!r}; llama.cpp's {there.name} computes {value!r} alone"
            )
    if kind == "gemma2" and not all(config.get(f"{name}_logit_softcapping", 1) for name in ("attn", "final")):
        raise RecipeError(f"{where}: logits without a soft cap, which llama.cpp's gemma2 always has")
    activation = config.get("hidden_activation") or config.get("hidden_act") or config.get("activation_function")
    allowed = ACTIVATIONS.get(kind, ("silu", "swish"))
    if activation is not None and activation not in allowed:
        raise RecipeError(f"{where}: hidden_act is {activation!r}; llama.cpp's {there.name} has {allowed[0]}")


def check_layers(config: Config, where: str) -> None:
    """Refuse an order of layers that llama.cpp has not: known once the layers are chosen.

    Raises:
        RecipeError: Names the layers and what would work.
    """
    kinds = config.get("layer_types")
    if kinds is not None and "sliding_attention" not in kinds and ARCHITECTURES[str(config["model_type"])].windows:
        raise RecipeError(f"{where}: no layer slides any more, and llama.cpp has no such Gemma; keep one that does")
    ropes = config.get("no_rope_layers")
    if config["model_type"] == "smollm3" and ropes:
        wanted = [int((layer + 1) % _NO_ROPE_EVERY != 0) for layer in range(len(ropes))]
        if list(map(int, ropes)) != wanted:
            raise RecipeError(
                f"{where}: no_rope_layers is {ropes}, and llama.cpp's smollm3 has every {_NO_ROPE_EVERY}th layer "
                f"without; drop layers in blocks of {_NO_ROPE_EVERY}, or use the folder"
            )


def checked_context(config: Config, shape: Shape) -> int:
    """The longest text on which a file and its model are to say the same.

    That is the model's context, or the window of its layers where llama.cpp does not know of it, or with longrope the
    context that it was trained on first: beyond that other factors hold (`stretched_context`).
    """
    context = file_context(config, shape)
    return min(context, stretched_context(config, shape) or context)


def stretched_context(config: Config, shape: Shape) -> int | None:
    """The context beyond which longrope takes its long factors, where a file's context goes beyond.

    transformers takes them when the text is longer, llama.cpp when the context that it was started with is.
    """
    rope = rope_parameters(config) if shape.family.rotary else {"rope_type": "default"}
    if rope["rope_type"] != "longrope":
        return None
    trained = trained_context(config, rope)
    return trained if trained < file_context(config, shape) else None


def file_context(config: Config, shape: Shape) -> int:
    """The context that stands in the file: the model's, or the window that llama.cpp does not know of."""
    return min(shape.max_position_embeddings, windowed_context(config) or shape.max_position_embeddings)


def windowed_context(config: Config) -> int | None:
    """The window beyond which llama.cpp would see more than the model does, where it knows of no windows."""
    if ARCHITECTURES[str(config["model_type"])].windows:
        return None
    kinds = config.get("layer_types")
    if kinds is not None:
        slides = "sliding_attention" in kinds
    else:  # Mistral and Phi-3 slide wherever they name a window
        slides = bool(config.get("use_sliding_window", config["model_type"] in ("mistral", "mixtral", "phi3")))
    window = config.get("sliding_window", _WINDOWS.get(str(config["model_type"])))
    return int(window) if slides and window else None


def model_keys(config: Config, shape: Shape) -> dict[str, Any]:
    """What stands in the file of a model's shape and arithmetic, by llama.cpp's names without the architecture's."""
    kind, family = str(config["model_type"]), shape.family
    keys: dict[str, Any] = {
        "context_length": file_context(config, shape),
        "embedding_length": shape.hidden_size,
        "block_count": shape.num_hidden_layers,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.num_attention_heads,
        "attention.head_count_kv": shape.num_key_value_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "vocab_size": shape.vocab_size,
    }
    keys |= _norms(config, family.layer_norm)
    if family.rotary:
        keys |= rope_keys(config, shape)
    if shape.num_experts:
        keys |= {"expert_count": shape.num_experts, "expert_used_count": shape.experts_per_token}
    if kind == "qwen3_moe":
        keys["expert_feed_forward_length"] = shape.intermediate_size
    if kind == "gpt_neox":
        keys["use_parallel_residual"] = bool(config.get("use_parallel_residual", True))
    if kind == "granite":
        keys |= {
            "embedding_scale": float(config.get("embedding_multiplier", 1.0)),
            "residual_scale": float(config.get("residual_multiplier", 1.0)),
            "attention.scale": float(config.get("attention_multiplier", 1.0)),
            "logit_scale": float(config.get("logits_scaling", 1.0)),
        }
    if ARCHITECTURES[kind].windows:
        keys |= _gemma(config, shape)
    return keys


def _norms(config: Config, layer_norm: bool) -> dict[str, float]:
    if layer_norm:
        epsilon = config.get("layer_norm_epsilon", config.get("layer_norm_eps", 1e-5))
        return {"attention.layer_norm_epsilon": float(epsilon)}
    default = _RMS_EPSILON.get(str(config["model_type"]), 1e-6)
    return {"attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", default))}


def _gemma(config: Config, shape: Shape) -> dict[str, Any]:
    kinds = config.get("layer_types")
    if kinds is None:
        rule = shape.family.lists["layer_types"]
        kinds = [rule(layer, config) for layer in range(shape.num_hidden_layers)]
    keys: dict[str, Any] = {
        "attention.sliding_window": int(config.get("sliding_window") or 4096),
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds],
        "rope.freq_base_swa": float(rope_parameters(config, "sliding_attention")["rope_theta"]),
    }
    caps = GEMMA2_CAPS if config["model_type"] == "gemma2" else {}
    return keys | {key: float(config.get(key, cap)) for key, cap in caps.items()}


def rounds_activation(config: Config) -> bool:
    """Whether llama.cpp reads the activation from a table in half precision: it does so for GELU."""
    return str(config["model_type"]) in ACTIVATIONS
