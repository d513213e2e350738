"""The rotary parameters of a config.json, resolved as transformers 5 resolves them.

They are in `rope_parameters` (transformers 5), or in `rope_scaling`, `rope_theta` and keys of single families
(transformers 4), and often in both. Only this module reads those keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log, pi
from typing import Any

from prunus.errors import ModelError
from prunus.models.families.rotary import Rotary

Config = Mapping[str, Any]

KINDS = ("full_attention", "sliding_attention")
"""The kinds of layers that may have different rotary parameters."""

SCALABLE_ROPES = frozenset({"default", "linear", "llama3", "yarn", "longrope"})
"""Rotary position embeddings whose first pairs keep their frequencies with fewer pairs, if theta changes: those that
depend on a pair's frequency (linear, llama3), or on its number (longrope's factors, yarn's ramp; see `yarn_end`)."""

_SOURCES = ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor",
            "rotary_emb_base", "rotary_pct")  # fmt: skip

_SCALED = ("llama3", "yarn", "longrope")


def rope_parameters(config: Config, rotary: Rotary, kind: str = "full_attention") -> dict[str, Any]:
    """The rotary parameters that transformers uses.

    The result always has `rope_type`, `rope_theta` and `partial_rotary_factor`.

    If config.json has both `rope_scaling` and `rope_parameters`, the former replaces the latter completely; in families
    with parameters per kind of layer, it is added to those of full layers. Missing values come from the other keys of
    config.json, then from the family's defaults.

    Args:
        config: The contents of config.json.
        rotary: The family's keys and defaults.
        kind: The kind of layer; matters only if kinds have different parameters.
    """
    if rotary.sliding_theta is not None:
        return _of_kind(config, rotary, kind)
    own = config.get("rope_scaling") or config.get("rope_parameters")
    rope = rotary.default(config) if own is None else dict(own)
    rope.setdefault("rope_theta", config.get(rotary.theta_key, rotary.theta))
    share = config.get(rotary.share_key)
    rope.setdefault("partial_rotary_factor", rotary.share if share is None else share)
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope["rope_type"] = rotary.renamed.get(str(rope["rope_type"]), rope["rope_type"])
    if rope["rope_type"] in _SCALED:
        _add_trained_context(rope, config, rotary)
    if rotary.alpha and rope["rope_type"] == "dynamic" and rope.get("alpha"):
        return _without_alpha(rope, config["head_dim"])
    return rope


def rope_types(config: Config, rotary: Rotary) -> frozenset[str]:
    """The types of the rotary parameters, by transformers' names; also `partial` if a part of a head is rotated."""
    sets = all_rope_parameters(config, rotary)
    partial = any(rope["partial_rotary_factor"] != 1.0 for rope in sets)
    return frozenset({rope["rope_type"] for rope in sets} | ({"partial"} if partial else set()))


def all_rope_parameters(config: Config, rotary: Rotary) -> list[dict[str, Any]]:
    """The parameters of each kind of layer; one set if all layers share it."""
    return [rope_parameters(config, rotary, kind) for kind in _kinds(rotary)]


def yarn_end(config: Config, rotary: Rotary, head_dim: int) -> int | None:
    """The least head_dim that keeps yarn's frequencies; None without yarn.

    Yarn divides the frequencies of slow pairs by a factor, those of fast pairs by 1, and interpolates between two pairs
    in the middle, whose numbers follow from theta^(1 / head_dim) alone (arXiv 2309.00071, section 3.2). Only the last
    of them is limited by head_dim - 1. As transformers' `_compute_yarn_parameters`.
    """
    ends = []
    for rope in all_rope_parameters(config, rotary):
        if rope["rope_type"] != "yarn":
            continue
        theta, trained = rope["rope_theta"], rope["original_max_position_embeddings"] or 0
        turns = (rope.get("beta_slow") or 1) * 2 * pi
        falls = theta > 1 and trained > turns  # otherwise no number of pairs follows from them
        ends.append(ceil(head_dim * log(trained / turns) / (2 * log(theta))) + 1 if falls else head_dim)
    return max(ends, default=None)


def with_rope_resolved(config: Config, rotary: Rotary, kept: float = 1.0) -> dict[str, Any]:
    """A config with resolved rotary parameters, all in `rope_parameters`.

    Args:
        config: The contents of config.json.
        rotary: The family's keys and defaults.
        kept: The share of each head's pairs that is kept, the fastest; every theta is raised to this power.
    """
    kinds = _kinds(rotary)
    sets = {kind: rope_parameters(config, rotary, kind) for kind in kinds}
    for rope in sets.values():
        rope["rope_theta"] **= kept
        for factors in [name for name in ("short_factor", "long_factor") if isinstance(rope.get(name), list)]:
            rope[factors] = rope[factors][: round(kept * len(rope[factors]))]
        if rope["partial_rotary_factor"] == rotary.share == 1.0:
            del rope["partial_rotary_factor"]
    rest = {key: value for key, value in config.items() if key not in _SOURCES}
    return {**rest, "rope_parameters": sets if len(kinds) > 1 else sets[kinds[0]]}


def check_rope(config: Config, rotary: Rotary, where: str) -> None:
    """Refuse rotary parameters in a form that no loader reads.

    Raises:
        ModelError: The message names the key, its value and what is allowed.
    """
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(key), Mapping | None):
            raise ModelError(f"{where}: config.json: {key} is {config[key]!r:.80}; expected an object")
    sets = config.get("rope_parameters") or {}
    for kind in KINDS:
        if kind in sets and rotary.sliding_theta is None:
            raise ModelError(f"{where}: config.json: rope_parameters.{kind}: a {config.get('model_type')} has one set")
        if not isinstance(sets.get(kind), Mapping | None):
            raise ModelError(f"{where}: config.json: rope_parameters.{kind} is {sets[kind]!r:.80}; expected an object")
    for rope in all_rope_parameters(config, rotary):
        _check_values(rope, where)


def _kinds(rotary: Rotary) -> tuple[str, ...]:
    return KINDS if rotary.sliding_theta is not None else KINDS[:1]


def _of_kind(config: Config, rotary: Rotary, kind: str) -> dict[str, Any]:
    """`rope_parameters` for families with parameters per kind of layer."""
    rope = dict((config.get("rope_parameters") or {}).get(kind) or {"rope_type": "default"})
    if kind == "sliding_attention":
        rope.setdefault("rope_theta", config.get(rotary.sliding_key, rotary.sliding_theta))
    else:
        rope |= config.get("rope_scaling") or {}
        rope.setdefault("rope_theta", config.get("rope_theta", rotary.theta))
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("partial_rotary_factor", 1.0)
    if rope["rope_type"] in _SCALED:
        rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


def _without_alpha(rope: Config, head_dim: int) -> dict[str, Any]:
    theta = rope["rope_theta"] * rope["alpha"] ** (head_dim / (head_dim - 2))
    return {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": rope["partial_rotary_factor"]}


def _add_trained_context(rope: dict[str, Any], config: Config, rotary: Rotary) -> None:
    """Add the context length before its extension; config.json's key takes precedence, as in transformers."""
    own = config.get("original_max_position_embeddings", rotary.trained)
    if own is not None:
        rope["original_max_position_embeddings"] = own
    rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))


def _check_values(rope: Mapping[str, Any], where: str) -> None:
    if not isinstance(rope["rope_type"], str):
        raise ModelError(f"{where}: config.json: rope_type is {rope['rope_type']!r:.80}; expected a name")
    for key in ("rope_theta", "partial_rotary_factor", "factor", "low_freq_factor", "high_freq_factor",
                "original_max_position_embeddings", "beta_slow"):  # fmt: skip
        value = rope.get(key, 1.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ModelError(f"{where}: config.json: {key} is {value!r:.80}; expected a number above 0")
