"""Folders that are no plain checkpoint of one text model: named as what they are, with what helps.

Transformers reads some of them by other means (peft, quantisers, code of the folder's own), and would then compute
something else than what is cut here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prunus.errors import ModelError

ADAPTER = "adapter_config.json"
_MERGE = "merge it into its model first (peft: model.merge_and_unload().save_pretrained(...))"
_DEQUANTISE = (
    "take the checkpoint that it was made from, or dequantise it first, with the library that it names: "
    "AutoModelForCausalLM.from_pretrained(...).dequantize().save_pretrained(...)"
)
_UNWRAP = "save the model inside, or take the prefix off the names"
_EXTRACT = "Prunus cuts text models: save the language model inside as a folder of its own first"

_NAMES = (
    (r"(^|\.)_orig_mod\.", "a model compiled with torch.compile, whose names begin with `_orig_mod.`", _UNWRAP),
    (
        r"^(module|_fsdp_wrapped_module|_forward_module)\.",
        "a model inside a wrapper for training on several devices",
        _UNWRAP,
    ),
    (r"(^|\.)(lora_\w+|base_layer|modules_to_save)(\.|$)", "a model with an adapter (LoRA) in it", _MERGE),
    (r"\.(qweight|qzeros|g_idx|scales)$", "a quantised checkpoint (GPTQ, AWQ or the like)", _DEQUANTISE),
    (r"\.(absmax|quant_map|nested_\w+|quant_state\..+|SCB)$", "a quantised checkpoint (bitsandbytes)", _DEQUANTISE),
    (r"\.weight_packed$", "a quantised checkpoint (compressed-tensors)", _DEQUANTISE),
    (r"\.(weight|input|activation)_scale(_inv)?$", "a quantised checkpoint (FP8 or the like)", _DEQUANTISE),
    (r"_proj_(blocks|scales)$", "a quantised checkpoint (MXFP4)", _DEQUANTISE),
    (
        r"(^|\.)(language_model|vision_tower|vision_model|visual|multi_modal_projector|audio_tower)\.",
        "a model of several parts, of which one reads text",
        _EXTRACT,
    ),
)
"""Patterns of tensors' names, what such a checkpoint is, and what helps."""

_ANY_NAME = re.compile("|".join(f"(?:{pattern})" for pattern, *_ in _NAMES))

_NO_WEIGHTS = (
    ("model-*-of-*.safetensors", "{count} shards ({first}) and no model.safetensors.index.json; copy the index too"),
    (
        "pytorch_model*.bin",
        "its weights are pickled ({first}), which can run code; convert them once with "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
    ),
    ("consolidated*", "weights in their maker's form ({first}); take the folder that transformers reads"),
    ("*.gguf", "a file of llama.cpp ({first}); name the file itself: it is unpacked into a folder of its own"),
    ("*.safetensors", "{first} has no name that transformers reads; it reads model.safetensors and shards of an index"),
)
"""Files of weights that are not read, and what to say of them."""

_CONFIGS = ("quantization_config", "compression_config")


def check_no_adapter(folder: Path) -> None:
    """Refuse an adapter, and weights with an adapter in the same folder, which transformers with peft would add.

    Raises:
        ModelError: There is an adapter.
    """
    if not (folder / ADAPTER).is_file():
        return
    if (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: there is an adapter ({ADAPTER}) in the folder of a model, and transformers with peft would "
            f"load both; {_MERGE}, or move the adapter elsewhere"
        )
    raise ModelError(f"{folder}: an adapter (LoRA), not a model; {_MERGE}")


def check_plain(config: Mapping[str, Any], where: str) -> None:
    """Refuse a config.json of weights that are quantised, or that stand in another file than the usual one.

    Raises:
        ModelError: It is such a one.
    """
    for key in _CONFIGS:
        settings = config.get(key)
        if settings:
            method = settings.get("quant_method", "?") if isinstance(settings, Mapping) else settings
            raise ModelError(f"{where}: a quantised checkpoint ({key}: {method!s:.40}); {_DEQUANTISE}")
    if config.get("transformers_weights") is not None:
        raise ModelError(
            f"{where}: config.json: transformers_weights is {config['transformers_weights']!r:.80}: weights in a file "
            "of another name, which only transformers reads; expected none"
        )


def describe_unknown(config: Mapping[str, Any]) -> str:
    """What a model of a type without a table is, where its config.json tells; else an empty string."""
    parts = sorted(key for key, value in config.items() if key.endswith("_config") and isinstance(value, Mapping))
    if "text_config" in parts:
        inner = config["text_config"].get("model_type", "?")
        return f"a model of several parts ({', '.join(parts)}; its text model is {inner!s:.40}). {_EXTRACT}"
    if config.get("auto_map"):
        return "its config.json asks for code of its own (`auto_map`), which Prunus never runs"
    return ""


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse tensors whose names are those of another kind of checkpoint.

    Raises:
        ModelError: Names the first, the kind and what helps.
    """
    name = next((name for name in names if _ANY_NAME.search(name)), None)
    if name is None:
        return
    for pattern, kind, remedy in _NAMES:
        if re.search(pattern, name):
            raise ModelError(f"{where}: {kind}: it has {name!r:.120}; {remedy}")


def describe_no_weights(folder: Path) -> str:
    """What stands in a folder in place of weights that are read."""
    for pattern, text in _NO_WEIGHTS:
        files = sorted(file.name for file in folder.glob(pattern))
        if files:
            return text.format(count=len(files), first=files[0])
    return "there are no weights: neither model.safetensors nor model.safetensors.index.json"


def has_weights(folder: Path) -> bool:
    """Whether there is any file of weights in a folder, read or not."""
    patterns = (*(pattern for pattern, _ in _NO_WEIGHTS), "model.safetensors.index.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)
