"""Checks of config.json, key by key: types and ranges that transformers accepts, and variants that a table covers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from prunus.errors import ModelError
from prunus.models.checkpoint import DTYPES
from prunus.models.families.family import Family
from prunus.models.positions import check_rope

MAX_LAYERS = 10_000
MAX_EXPERTS = 10_000
MAX_SIZE = 2**31 - 1
"""Limits of layers, of experts per layer, and of all other sizes, which are checked before tensors are listed."""

_LIMITS = {"num_hidden_layers": MAX_LAYERS, "num_experts": MAX_EXPERTS, "num_experts_per_tok": MAX_EXPERTS}
_LEAST = {
    "sliding_window": 1,
    "sliding_window_pattern": 1,
    "max_window_layers": 0,
    "no_rope_layer_interval": 1,
}
_IDS = re.compile(r"(.*_)?token_id")


def check_settings(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse values that transformers refuses or interprets differently, and variants that the table does not cover.

    Raises:
        ModelError: The message names the key, its value and what is allowed.
    """
    for key, value in config.items():
        if isinstance(value, float) and not isfinite(value):
            raise ModelError(f"{where}: config.json: {key} is {value!r}; expected a finite number")
    if family.rotary is not None:
        check_rope(config, family.rotary, where)
    for key, least in _LEAST.items():
        unread = key == "sliding_window_pattern" and config.get("layer_types") is not None
        if key == "sliding_window" and config.get(key) == 0:  # transformers writes it where no layer slides
            unread = not config.get("use_sliding_window", family.slides)
        if config.get(key) is not None and not unread:
            check_whole(key, config[key], least, MAX_SIZE, where)
    for key in family.flags:
        if not isinstance(config.get(key, False), bool):
            raise ModelError(f"{where}: config.json: {key} is {config[key]!r:.80}; expected true or false")
    if not isinstance(config.get("use_sliding_window"), bool | None):
        value = config["use_sliding_window"]
        raise ModelError(f"{where}: config.json: use_sliding_window is {value!r:.80}; expected true or false")
    check_token_ids(config, f"{where}: config.json")
    _check_dtype(config, where)
    _check_lists(config, family, where)
    for key, value in family.requires.items():
        allowed = value(config) if callable(value) else (value,)
        if config.get(key) is not None and config[key] not in allowed:
            raise ModelError(
                f"{where}: config.json: {key} is {config[key]!r:.80}; the table of {family.name} is for "
                f"{' or '.join(map(repr, allowed))} alone"
            )


def check_token_ids(config: Mapping[str, Any], where: str) -> None:
    """Refuse a token id (`eos_token_id` and the like) that is neither a whole number nor a list of them.

    Raises:
        ModelError: The message names the key and its value.
    """
    for key, value in config.items():
        ids = value if isinstance(value, list) else [value]
        if _IDS.fullmatch(key) and value is not None and not all(type(i) is int for i in ids):
            raise ModelError(f"{where}: {key} is {value!r:.80}; expected a token's id, or a list of them")


def read_size(config: Mapping[str, Any], family: Family, size: str, where: str, default: int | None) -> int:
    """A size of a `Shape`, from config.json, else from the family's defaults or `default`.

    Raises:
        ModelError: It is missing, or not a whole number between 1 and the limit.
    """
    keys = family.config_keys(size)
    value = next((config[key] for key in keys if config.get(key) is not None), None)
    if size in family.listed and isinstance(value, list) and value and all(one == value[0] for one in value):
        value = value[0]
    if value is None:
        value = family.defaults[size](config) if size in family.defaults else default
    return check_whole(" or ".join(keys) or size, value, 1, _LIMITS.get(size, MAX_SIZE), where)


def read_pattern(config: Mapping[str, Any], family: Family, layers: int, where: str) -> tuple[str, ...]:
    """The kind of each layer, from the list of `Family.pattern` or its default; empty in families without one.

    Raises:
        ModelError: An entry is not a kind of layers that the table has.
    """
    if not family.pattern:
        return ()
    values = config.get(family.pattern)
    if values is None:
        values = [family.lists[family.pattern](layer, config) for layer in range(layers)]
    known = [kind for kind in family.kinds if kind not in ("dense", "sparse")]
    for layer, value in enumerate(values):
        if value not in known:
            raise ModelError(
                f"{where}: config.json: {family.pattern}: layer {layer} is {value!r:.80}; allowed in "
                f"{family.name}: {', '.join(known)}"
            )
    return tuple(values)


def check_whole(key: str, value: Any, least: int, most: int, where: str) -> int:
    """Return the value if it is a whole number within bounds.

    Raises:
        ModelError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ModelError(
            f"{where}: config.json: {key} is {value!r:.80}; expected a whole number from {least} to {most}"
        )
    return value


def dtype_name(config: Mapping[str, Any]) -> str | None:
    """The dtype that a config.json names for its weights, by torch's name; None if it names none.

    Transformers has two keys for it; the newer takes precedence.
    """
    value = config.get("dtype") if config.get("dtype") is not None else config.get("torch_dtype")
    return None if value is None else str(value)


def _check_dtype(config: Mapping[str, Any], where: str) -> None:
    for key in ("dtype", "torch_dtype"):
        if config.get(key) is not None and config[key] not in tuple(DTYPES):
            raise ModelError(
                f"{where}: config.json: {key} is {config[key]!r:.80}; expected one of {', '.join(sorted(DTYPES))}"
            )


def _check_lists(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Check lists with one entry per layer."""
    for key in {"layer_types", *family.lists}:
        value = config.get(key)
        if value is None:
            continue
        layers = read_size(config, family, "num_hidden_layers", where, None)
        if not isinstance(value, list) or len(value) != layers:
            raise ModelError(
                f"{where}: config.json: {key} is {value!r:.80}; expected a list of {layers}, one for each layer"
            )
