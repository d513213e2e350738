"""A model's config.json as GGUF keys, and checks of settings that llama.cpp cannot represent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import RecipeError
from prunus.gguf.positions import check_positions, rope_keys, trained_context
from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf
from prunus.models.families.table import FAMILIES
from prunus.models.positions import rope_parameters
from prunus.models.shape import Shape

Config = Mapping[str, Any]


def gguf_of(family: Family, where: str) -> Gguf:
    """How llama.cpp stores a family.

    Raises:
        RecipeError: llama.cpp does not support it.
    """
    if family.gguf is None:
        known = [name for name, other in FAMILIES.items() if other.gguf is not None]
        raise RecipeError(
            f"{where}: Prunus cannot write {family.model_type} for llama.cpp; allowed: {', '.join(known)}. "
            "What works for any model: the plain folder, which transformers and vLLM load"
        )
    return family.gguf


def check_model(config: Config, shape: Shape, where: str) -> None:
    """Refuse a model that llama.cpp would compute differently.

    Raises:
        RecipeError: Names the setting, and what would work.
    """
    check_shape(config, shape, where)
    fault = gguf_of(shape.family, where).layer_fault(config)
    if fault is not None:
        raise RecipeError(f"{where}: {fault}")


def check_planned(config: Config, shape: Shape, where: str) -> None:
    """`check_model` before a model exists; for a depth cut `check_shape`, as its layers are chosen later.

    Args:
        config: The contents of the teacher's config.json.
        shape: The dimensions that the model will have.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the setting, and what would work.
    """
    keeps_layers = config.get("num_hidden_layers") == shape.num_hidden_layers
    (check_model if keeps_layers else check_shape)(config, shape, where)


def check_shape(config: Config, shape: Shape, where: str) -> None:
    """The part of `check_model` that does not depend on which layers are kept.

    Args:
        config: The contents of config.json.
        shape: The model's dimensions, or those that a student will have.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the setting, and what would work.
    """
    there = gguf_of(shape.family, where)
    check_positions(config, shape, where)
    if there.square and shape.hidden_size != shape.num_attention_heads * shape.head_dim:
        raise RecipeError(
            f"{where}: hidden_size is {shape.hidden_size}, but llama.cpp expects num_attention_heads x head_dim = "
            f"{shape.num_attention_heads * shape.head_dim} in {shape.family.name}; cut both equally, or use the folder"
        )
    for flag in shape.family.biases:
        if shape.flags[flag] and flag not in there.biases:
            raise RecipeError(f"{where}: {flag} is true, but llama.cpp's {there.architecture} has no such biases")
    if there.tied and not shape.flags["tie_word_embeddings"]:
        raise RecipeError(f"{where}: tie_word_embeddings is false, but llama.cpp's {there.architecture} ties them")
    for needed in there.required:
        if config.get(needed.key, needed.default) != needed.value:
            raise RecipeError(
                f"{where}: {needed.key} is {config.get(needed.key)!r}; llama.cpp's {there.architecture} supports "
                f"only {needed.value!r}"
            )
    fault = there.fault(config)
    if fault is not None:
        raise RecipeError(f"{where}: {fault}")
    key = shape.family.activation_key
    if config.get(key) is not None and config[key] not in there.activations:
        raise RecipeError(
            f"{where}: {key} is {config[key]!r}; llama.cpp's {there.architecture} uses {there.activations[0]}"
        )


def checked_context(config: Config, shape: Shape) -> int:
    """The longest text, in tokens, on which a file and its model must agree.

    That is the model's context; or its sliding window, if llama.cpp does not support windows for the family; or with
    longrope the original training context, beyond which other factors apply (`stretched_context`).
    """
    context = file_context(config, shape)
    return min(context, stretched_context(config, shape) or context)


def stretched_context(config: Config, shape: Shape) -> int | None:
    """The context beyond which longrope uses its long factors; None if the file's context is not longer.

    transformers uses them if the text is longer, llama.cpp if the context that it was started with is.
    """
    if shape.family.rotary is None:
        return None
    rope = rope_parameters(config, shape.family.rotary)
    if rope["rope_type"] != "longrope":
        return None
    trained = trained_context(config, rope)
    return trained if trained < file_context(config, shape) else None


def file_context(config: Config, shape: Shape) -> int:
    """The context that is written to the file: the model's, or its window if llama.cpp does not support windows."""
    return min(shape.max_position_embeddings, windowed_context(config, shape.family) or shape.max_position_embeddings)


def windowed_context(config: Config, family: Family) -> int | None:
    """The model's sliding window, if llama.cpp does not support windows for the family; else None."""
    if family.gguf is not None and family.gguf.windows:
        return None
    kinds = config.get("layer_types")
    slides = config.get("use_sliding_window", family.slides) if kinds is None else "sliding_attention" in kinds
    window = config.get("sliding_window", family.window)
    return int(window) if slides and window else None


def model_keys(config: Config, shape: Shape) -> dict[str, Any]:
    """The file's keys on shape and arithmetic, named without the architecture's prefix."""
    family = shape.family
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
    kind = "layer_norm" if family.layer_norm else "layer_norm_rms"
    keys[f"attention.{kind}_epsilon"] = float(config.get(family.epsilon_key, family.epsilon))
    keys |= rope_keys(config, shape)
    if shape.num_experts:
        keys |= {"expert_count": shape.num_experts, "expert_used_count": shape.num_experts_per_tok}
    return keys | gguf_of(family, "export").write(config, shape.dimensions())


def rounds_activation(family: Family) -> bool:
    """Whether llama.cpp reads the activation from a table in half precision: it does so for GELU."""
    return family.gguf is not None and family.gguf.activations[0].startswith("gelu")
