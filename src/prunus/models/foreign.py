"""Folders that are not a plain checkpoint of one text model: errors that name the kind and a remedy.

Transformers can load some of them by other means (peft, quantisers, code in the folder), and would then compute
something else than Prunus does.
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
    "use the checkpoint that it was made from, or dequantise it first, with the library that it names: "
    "AutoModelForCausalLM.from_pretrained(...).dequantize().save_pretrained(...)"
)
_UNWRAP = "save the model inside, or remove the prefix from the names"
_EXTRACT = "Prunus works on text models: `prunus extract` writes the one inside to a folder of its own"

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
"""Patterns of tensor names, the kind of checkpoint, and the remedy."""

_ANY_NAME = re.compile("|".join(f"(?:{pattern})" for pattern, *_ in _NAMES))

_NO_WEIGHTS = (
    ("model-*-of-*.safetensors", "{count} shards ({first}) and no model.safetensors.index.json; copy the index too"),
    (
        "pytorch_model*.bin",
        "its weights are pickled ({first}), which can run code; convert them once with "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
    ),
    ("consolidated*", "weights in their publisher's format ({first}); use the version for transformers"),
    ("*.gguf", "a GGUF file ({first}); give the path of the file itself, which is then unpacked"),
    ("*.safetensors", "transformers does not read {first}; expected model.safetensors, or shards and their index"),
)
"""Files of weights that are not read, and the message about each."""

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
    """Refuse a config.json for quantised weights, or for weights in a file with another name.

    Raises:
        ModelError: The config is for such weights.
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
    """Describe a model whose type has no table, as far as its config.json allows; else an empty string."""
    parts = sorted(key for key, value in config.items() if key.endswith("_config") and isinstance(value, Mapping))
    if "text_config" in parts:
        inner = config["text_config"].get("model_type", "?")
        return f"a model of several parts ({', '.join(parts)}; its text model is {inner!s:.40}). {_EXTRACT}"
    if config.get("auto_map"):
        return "its config.json refers to code in the folder (`auto_map`), which Prunus never runs"
    return ""


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse tensors whose names show another kind of checkpoint.

    Raises:
        ModelError: The message names the first tensor, the kind and the remedy.
    """
    name = next((name for name in names if _ANY_NAME.search(name)), None)
    if name is None:
        return
    for pattern, kind, remedy in _NAMES:
        if re.search(pattern, name):
            raise ModelError(f"{where}: {kind}: it has {name!r:.120}; {remedy}")


def describe_no_weights(folder: Path) -> str:
    """Describe a folder without readable weights."""
    for pattern, text in _NO_WEIGHTS:
        files = sorted(file.name for file in folder.glob(pattern))
        if files:
            return text.format(count=len(files), first=files[0])
    return "there are no weights: neither model.safetensors nor model.safetensors.index.json"


def has_weights(folder: Path) -> bool:
    """Whether a folder has any file of weights, in any format."""
    patterns = (*(pattern for pattern, _ in _NO_WEIGHTS), "model.safetensors.index.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)
