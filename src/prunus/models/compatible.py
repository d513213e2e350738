"""Compatibility of saved folders with transformers 4 and other readers.

Transformers 5 saves rotary parameters only as `rope_parameters`. Transformers 4 and mlx-lm read `rope_theta` and
`rope_scaling`; without them they silently use defaults and compute other logits. They also refuse transformers 5's name
of the tokenizer class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.models.families.rotary import Rotary
from prunus.models.families.table import FAMILIES
from prunus.models.positions import with_rope_resolved
from prunus.models.texts import read_model_json

_CODE = ("auto_map", "custom_pipelines")
_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
_NOT_SCALING = ("rope_theta", "partial_rotary_factor")


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add `rope_theta`, `rope_scaling` and similar keys to a config.json with `rope_parameters`.

    Keys that refer to code are removed, since no code is copied. A separate theta of sliding layers gets the
    family's own key.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    rotary = (family and family.rotary) or Rotary()
    result = with_rope_resolved(config, rotary) if config.get("rope_parameters") else dict(config)
    for key in _CODE:
        result.pop(key, None)
    for new, old in family.older_names.items() if family else ():
        if new in config:
            result[old] = config[new]
    rope = result.get("rope_parameters")
    if not rope:
        return result
    if "sliding_attention" in rope and rotary.sliding_key:
        result[rotary.sliding_key] = rope["sliding_attention"]["rope_theta"]
    rope = rope.get("full_attention", rope)
    result[rotary.theta_key] = result["rope_theta"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        result[rotary.share_key] = rope["partial_rotary_factor"]
    if rope["rope_type"] != "default":
        result["rope_scaling"] = {key: value for key, value in rope.items() if key not in _NOT_SCALING}
    return result


def make_compatible(folder: Path) -> None:
    """Add the keys for older readers to the files in a folder."""
    _rewrite(folder / "config.json", with_older_names)
    _rewrite(folder / "tokenizer_config.json", _with_known_class)


def _with_known_class(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in config.items() if key not in _CODE}
    if config.get("tokenizer_class") in _CLASSES:
        known["tokenizer_class"] = _CLASSES[config["tokenizer_class"]]
    if isinstance(config.get("extra_special_tokens"), list):  # transformers 4 expects a mapping there
        known["additional_special_tokens"] = known.pop("extra_special_tokens")
    return known


def _rewrite(file: Path, change: Any) -> None:
    if not file.is_file():
        return
    before = read_model_json(file)
    after = change(before)
    if after != before:
        file.write_text(json.dumps(after, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
