"""Text models inside models of several parts, such as those for vision and language: which are known, and their names.

Only what the text model computes on text alone is kept. It must be what one of the families computes: the exactness is
tested for every type of `OUTER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, among


@dataclass(frozen=True)
class Outer:
    """A type of models of several parts.

    Attributes:
        models: Published models.
        projector: The weights through which images enter the text model's residual stream, as patterns of the ends of
            their names, and which dimension of each is the text model's hidden_size. Empty if hidden_size is also a
            width inside the projector: its neurons are not the stream's channels, so it cannot be cut along.
        width: The key of vision_config that repeats hidden_size; empty for none.
        early: The key of vision_config that lists the images' features which are added after the text model's first
            layers, one after each; empty for none.
        sections: Whether rotary positions divide a head's pairs among time, height and width.
        square: Whether hidden_size must be heads x head_dim, unlike in the family of its text model.
    """

    models: str
    projector: Mapping[str, int] | None = None
    width: str = ""
    early: str = ""
    sections: bool = False
    square: bool = False

    def dimension(self, name: str) -> int | None:
        """Which dimension of a weight is the text model's hidden_size, by the weight's name; None for other weights."""
        ends = (self.projector or {}).items()
        return next((dim for end, dim in ends if re.search(rf"(^|\.){end}$", name)), None)


_MERGER = r"visual\.merger\.mlp\.2\.(weight|bias)"
_MERGERS = r"visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc2\.(weight|bias)"
_LAST = r"visual\.merger\.linear_fc2\.(weight|bias)"
_CONNECTOR = r"connector\.modality_projection\.proj\.weight"

OUTER = {
    "gemma3": Outer("Gemma 3 4B to 27B", {r"multi_modal_projector\.mm_input_projection_weight": 1}),
    "idefics3": Outer("Idefics 3, Granite Docling", {_CONNECTOR: 0}),
    "internvl": Outer("InternVL 3"),
    "llava": Outer("LLaVA 1.5, Pixtral"),
    "llava_next": Outer("LLaVA 1.6, Granite Vision"),
    "llava_onevision": Outer("LLaVA OneVision"),
    "mistral3": Outer("Mistral Small 3.1 and 3.2, Ministral 3"),
    "qwen2_5_vl": Outer("Qwen2.5-VL", {_MERGER: 0}, width="out_hidden_size", sections=True, square=True),
    "qwen2_vl": Outer("Qwen2-VL", {_MERGER: 0}, width="hidden_size", sections=True, square=True),
    "qwen3_5": Outer("Qwen3.5 and 3.6, dense", {_LAST: 0}, width="out_hidden_size", sections=True),
    "qwen3_vl": Outer(
        "Qwen3-VL, dense",
        {_MERGERS: 0},
        width="out_hidden_size",
        early="deepstack_visual_indexes",
        sections=True,
    ),
    "smolvlm": Outer("SmolVLM, SmolVLM2", {_CONNECTOR: 0}),
}
"""Types of models of several parts, by `model_type`."""

INNER = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
"""Types of text models that compute, on text alone, what a family of another type does: their rotary positions have
three parts (time, height, width), which are equal in text."""

_BASES = ("model.language_model.", "language_model.model.", "model.text_model.", "model.")
"""Where checkpoints hold the text model: those of transformers 5; of transformers 4, two forms; and the first Qwen2-VL,
in which only the other parts have prefixes. The first that occurs applies."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The embedding and the head of a text model, by their names in a checkpoint of text alone."""
_HEADS = ("lm_head.", "language_model.lm_head.")

_OF_TEXT = ("bos_token_id", "eos_token_id", "pad_token_id")
_TOKEN = re.compile(r"(.+_)?token_(id|index)")
_SHARED = ("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", *_OF_TEXT)
_ROPE_OF_IMAGES = ("mrope_section", "mrope_interleaved")


def text_names(names: Iterable[str]) -> dict[str, str]:
    """The tensors of the text model: their names in a checkpoint of all parts -> their names in one of text alone."""
    known = list(names)
    base = _base_in(known)
    found = {name: f"model.{name.removeprefix(base)}" for name in known if name.startswith(base)}
    for head in _HEADS:
        found |= {name: f"lm_head.{name.removeprefix(head)}" for name in known if name.startswith(head)}
    return found


def outer_name(name: str, names: Iterable[str]) -> str:
    """The name of a text model's tensor in a checkpoint of all parts that has the tensors `names`."""
    base = _base_in(list(names))
    if not name.startswith("model."):
        return f"language_model.{name}" if base == "language_model.model." else name
    return base + name.removeprefix("model.")


def outer_of(folder: Path, config: Mapping[str, Any]) -> Outer:
    """The type of a model of several parts.

    Raises:
        ModelError: The model is not one of several parts, or its type is not in `OUTER`.
    """
    from prunus.models.families.table import FAMILIES  # which imports every module of this folder

    outer = str(config.get("model_type"))
    if outer in FAMILIES:
        raise ModelError(f"{folder}: is a text model ({outer}), not a model of several parts")
    if outer not in OUTER:
        raise ModelError(f"{folder}: model_type {outer!r:.80}: the text model inside is not known{among(outer, OUTER)}")
    return OUTER[outer]


def inner_config(folder: Path, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The configs of the whole model and of the text model inside, as transformers reads them.

    Raises:
        ModelError: See `outer_of`; or transformers cannot read the config.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    outer_of(folder, config)
    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True)
        return whole, whole.get_text_config()
    except (ValueError, OSError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise ModelError(
            f"{folder}: config.json cannot be read by transformers: {' '.join(str(error).split())}"
        ) from None


def image_tokens(whole: Any) -> dict[str, int]:
    """The ids of tokens of the other parts, such as `image_token_id`, by their keys in the whole model's config."""
    return {
        key: value
        for key, value in whole.to_dict().items()
        if _TOKEN.fullmatch(key) and key not in _OF_TEXT and isinstance(value, int) and value >= 0
    }


def text_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the text model inside, with all defaults of transformers written out.

    Args:
        folder: The folder of the whole model.
        config: Its config.json.

    Raises:
        ModelError: See `inner_config`; or the text model has no family.
    """
    from transformers import AutoConfig

    from prunus.models.families.table import FAMILIES

    whole, inner = inner_config(folder, config)
    model_type = INNER.get(inner.model_type, inner.model_type)
    if model_type not in FAMILIES:
        raise ModelError(f"{folder}: its text model is of type {inner.model_type!r:.80}{among(model_type, FAMILIES)}")
    known = AutoConfig.for_model(model_type).to_dict().keys()
    values = {key: value for key, value in inner.to_dict().items() if key in known and value is not None}
    for key in _OF_TEXT:
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


def with_text(
    folder: Path, config: Mapping[str, Any], changes: Mapping[str, Any], hidden: tuple[int, int], new: Mapping[int, int]
) -> dict[str, Any]:
    """The whole model's config.json with a changed text model; all else stays as it is written.

    Args:
        folder: The folder of the whole model.
        config: Its config.json.
        changes: Keys of the text model's config.json, and their new values.
        hidden: hidden_size before and after.
        new: The new ids of the tokens of the other parts.
    """
    from transformers import PreTrainedConfig

    outer, (whole, inner) = outer_of(folder, config), inner_config(folder, config)
    flat = "text_config" not in config  # the first Qwen2-VL, whose text model's keys are those of the whole
    written = {key: config[key] for key in inner.to_dict() if flat and key in config and key not in _SHARED}
    result = {key: value for key, value in config.items() if key not in written}
    defaults = {key: value for key, value in inner.to_dict().items() if key not in PreTrainedConfig().to_dict()}
    result["text_config"] = {
        "model_type": inner.model_type,
        **defaults,
        **written,
        **config.get("text_config", {}),
        **changes,
    }
    result |= {key: changes[key] for key in changes if key in result}  # sizes that are repeated outside
    if outer.width and hidden[0] != hidden[1]:
        result["vision_config"] = {**config.get("vision_config", {}), outer.width: hidden[1]}
    return {
        **result,
        "tie_word_embeddings": changes["tie_word_embeddings"],
        **{key: new[token] for key, token in image_tokens(whole).items() if new},
    }


def _base_in(names: list[str]) -> str:
    return next((base for base in _BASES if any(name.startswith(f"{base}layers.") for name in names)), _BASES[-1])
