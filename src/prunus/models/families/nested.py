"""Text models inside models of several parts, such as those for vision and language: which are known, and their names.

Only what the text model computes on text alone is kept. It must be what one of the families computes: the exactness is
tested for every type of `OUTER`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, among

OUTER = {
    "gemma3": "Gemma 3 4B to 27B",
    "idefics3": "Idefics 3, Granite Docling",
    "internvl": "InternVL 3",
    "llava": "LLaVA 1.5, Pixtral",
    "llava_next": "LLaVA 1.6, Granite Vision",
    "llava_onevision": "LLaVA OneVision",
    "mistral3": "Mistral Small 3.1 and 3.2, Ministral 3",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_vl": "Qwen3-VL, dense",
    "smolvlm": "SmolVLM, SmolVLM2",
}
"""Types of models of several parts: `model_type`, and published models."""

INNER = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
"""Types of text models that compute, on text alone, what a family of another type does: their rotary positions have
three parts (time, height, width), which are equal in text."""

_BASES = ("model.language_model.", "language_model.model.", "model.text_model.", "model.")
"""Where checkpoints hold the text model: those of transformers 5; of transformers 4, two forms; and the first Qwen2-VL,
in which only the other parts have prefixes. The first that occurs applies."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The embedding and the head of a text model, by their names in a checkpoint of text alone."""
_HEADS = ("lm_head.", "language_model.lm_head.")

_ROPE_OF_IMAGES = ("mrope_section", "mrope_interleaved")


def text_names(names: Iterable[str]) -> dict[str, str]:
    """The tensors of the text model: their names in a checkpoint of all parts -> their names in one of text alone."""
    known = list(names)
    base = next((base for base in _BASES if any(name.startswith(f"{base}layers.") for name in known)), _BASES[-1])
    found = {name: f"model.{name.removeprefix(base)}" for name in known if name.startswith(base)}
    for head in _HEADS:
        found |= {name: f"lm_head.{name.removeprefix(head)}" for name in known if name.startswith(head)}
    return found


def text_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the text model inside, with all defaults of transformers written out.

    Args:
        folder: The folder of the whole model.
        config: Its config.json.

    Raises:
        ModelError: The model is not one of several parts, its type is not in `OUTER`, or its text model has no family.
    """
    from transformers import AutoConfig

    from prunus.models.families.table import FAMILIES  # which imports every module of this folder

    outer = str(config.get("model_type"))
    if outer in FAMILIES:
        raise ModelError(f"{folder}: is a text model ({outer}) already; nothing to extract")
    if outer not in OUTER:
        raise ModelError(f"{folder}: model_type {outer!r:.80}: the text model inside is not known{among(outer, OUTER)}")
    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True)
        inner = whole.get_text_config()
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: config.json cannot be read by transformers: {error}") from None
    model_type = INNER.get(inner.model_type, inner.model_type)
    if model_type not in FAMILIES:
        raise ModelError(f"{folder}: its text model is of type {inner.model_type!r:.80}{among(model_type, FAMILIES)}")
    known = AutoConfig.for_model(model_type).to_dict().keys()
    values = {key: value for key, value in inner.to_dict().items() if key in known and value is not None}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(inner, key, None)
        value = getattr(whole, key, None) if value is None else value
        values.pop(key, None)
        if value is not None:
            values[key] = value
    for key in ("_name_or_path", "transformers_version", "torch_dtype", "dtype"):
        values.pop(key, None)
    rope = values.get("rope_parameters")
    if isinstance(rope, dict):
        values["rope_parameters"] = {key: value for key, value in rope.items() if key not in _ROPE_OF_IMAGES}
    return {**values, "model_type": model_type, "architectures": [FAMILIES[model_type].class_name]}
