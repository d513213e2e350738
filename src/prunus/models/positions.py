"""The rotary parameters of a config.json, resolved as transformers 5 resolves them.

They stand in `rope_parameters` (transformers 5), or in `rope_scaling`, `rope_theta` and keys of single families
(transformers 4), and often in both. Nothing else of Prunus reads those keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import ModelError

Config = Mapping[str, Any]

KINDS = ("full_attention", "sliding_attention")
"""The kinds of layers that may turn positions differently."""

_SOURCES = ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor",
            "rotary_emb_base", "rotary_pct")  # fmt: skip

_BY_KIND = ("gemma3_text",)  # model types whose kinds of layers have parameters of their own
_THETAS = {"gemma3_text": 1e6, "mixtral": 1e6, "smollm3": 2e6}  # defaults; of every other type 10,000
_SLIDING_THETA = 1e4
_SCALED = ("llama3", "yarn", "longrope")
_KEYS = {"gpt_neox": ("rotary_emb_base", "rotary_pct", 0.25)}  # of theta and of the share of a head that is turned
_TRAINED = {"phi3": 4096}
_RENAMED = {"phi3": {"su": "longrope", "yarn": "longrope"}}


def rope_parameters(config: Config, kind: str = "full_attention") -> dict[str, Any]:
    """The rotary parameters that transformers computes with.

    `rope_type`, `rope_theta` and `partial_rotary_factor` are always there.

    `rope_scaling` replaces `rope_parameters` as a whole where both are there; Gemma 3 adds it to those of its full
    layers. What neither names comes from the keys around them, then from the model type's defaults.

    Args:
        config: The contents of config.json.
        kind: Of which layers; matters where kinds of layers have parameters of their own.
    """
    model_type = str(config.get("model_type"))
    if model_type in _BY_KIND:
        return _of_kind(config, kind, model_type)
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    theta, share, whole = _KEYS.get(model_type, ("rope_theta", "partial_rotary_factor", 1.0))
    rope.setdefault("rope_theta", config.get(theta, _THETAS.get(model_type, 1e4)))
    rope.setdefault("partial_rotary_factor", whole if config.get(share) is None else config[share])
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope["rope_type"] = _RENAMED.get(model_type, {}).get(str(rope["rope_type"]), rope["rope_type"])
    if rope["rope_type"] in _SCALED:
        _add_trained_context(rope, config)
    return rope


def all_rope_parameters(config: Config) -> list[dict[str, Any]]:
    """The parameters of each kind of layer; one set where all layers share it."""
    kinds = KINDS if config.get("model_type") in _BY_KIND else KINDS[:1]
    return [rope_parameters(config, kind) for kind in kinds]


def with_rope_resolved(config: Config, theta_power: float = 1.0) -> dict[str, Any]:
    """A config whose rotary parameters are resolved and stand in `rope_parameters` alone.

    Args:
        config: The contents of config.json.
        theta_power: Every theta is raised to this.
    """
    kinds = KINDS if config.get("model_type") in _BY_KIND else KINDS[:1]
    sets = {kind: rope_parameters(config, kind) for kind in kinds}
    for rope in sets.values():
        rope["rope_theta"] **= theta_power
        if rope["partial_rotary_factor"] == 1.0 and config.get("model_type") not in _KEYS:
            del rope["partial_rotary_factor"]
    rest = {key: value for key, value in config.items() if key not in _SOURCES}
    return {**rest, "rope_parameters": sets if len(kinds) > 1 else sets[kinds[0]]}


def check_rope(config: Config, where: str) -> None:
    """Refuse rotary parameters of a form that no loader reads.

    Raises:
        ModelError: Names the key, its value and what is allowed.
    """
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(key), Mapping | None):
            raise ModelError(f"{where}: config.json: {key} is {config[key]!r:.80}; expected an object")
    by_kind = config.get("model_type") in _BY_KIND
    sets = config.get("rope_parameters") or {}
    for kind in KINDS:
        if kind in sets and not by_kind:
            raise ModelError(f"{where}: config.json: rope_parameters.{kind}: a {config.get('model_type')} has one set")
        if not isinstance(sets.get(kind), Mapping | None):
            raise ModelError(f"{where}: config.json: rope_parameters.{kind} is {sets[kind]!r:.80}; expected an object")
    for rope in all_rope_parameters(config):
        _check_values(rope, where)


def _of_kind(config: Config, kind: str, model_type: str) -> dict[str, Any]:
    """As `rope_parameters`, where kinds of layers have parameters of their own."""
    rope = dict((config.get("rope_parameters") or {}).get(kind) or {"rope_type": "default"})
    if kind == "sliding_attention":
        rope.setdefault("rope_theta", config.get("rope_local_base_freq", _SLIDING_THETA))
    else:
        rope |= config.get("rope_scaling") or {}
        rope.setdefault("rope_theta", config.get("rope_theta", _THETAS[model_type]))
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("partial_rotary_factor", 1.0)
    if rope["rope_type"] in _SCALED:
        rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


def _add_trained_context(rope: dict[str, Any], config: Config) -> None:
    """The context before it was stretched; the config's own comes first, as transformers has it when a model is made.

    Phi-3 has a default for it.
    """
    own = config.get("original_max_position_embeddings", _TRAINED.get(str(config.get("model_type"))))
    if own is not None:
        rope["original_max_position_embeddings"] = own
    rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))


def _check_values(rope: Mapping[str, Any], where: str) -> None:
    if not isinstance(rope["rope_type"], str):
        raise ModelError(f"{where}: config.json: rope_type is {rope['rope_type']!r:.80}; expected a name")
    for key in ("rope_theta", "partial_rotary_factor", "factor", "low_freq_factor", "high_freq_factor",
                "original_max_position_embeddings"):  # fmt: skip
        value = rope.get(key, 1.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ModelError(f"{where}: config.json: {key} is {value!r:.80}; expected a number above 0")
