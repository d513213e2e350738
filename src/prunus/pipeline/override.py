"""Flags over a recipe: each goes into the raw YAML at its place, as if it had been written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def override(raw: dict[str, Any], values: dict[str, Any], flags: Sequence[str]) -> None:
    """Set in `raw` what the flags were given.

    Args:
        raw: The recipe as YAML gave it; changed in place.
        values: The whole recipe as parsed with the flags, which holds their values.
        flags: Their dotted names, such as `students.width.prune.hidden-size`; those of no option are passed over.
    """
    for flag in flags:
        _put(raw, values, flag.replace("-", "_"))


def replace_at(raw: dict[str, Any], values: dict[str, Any], name: str, value: Any) -> None:
    """Set one value in `raw`, a whole section or an option, by its dotted name.

    Args:
        raw: The recipe as YAML gave it; changed in place.
        values: The whole recipe as parsed.
        name: Such as `students.width.distill.states`.
        value: What to put there.
    """
    *path, last = _path(values, name) or name.split(".")
    for key in path:
        raw, values = _child(raw, key, values[key]), values[key]
    raw[last] = value


def _put(raw: Any, values: Any, flag: str) -> None:
    path = _path(values, flag) or _path(values, flag.removeprefix("no_"))
    if path is None:
        return
    for key in path[:-1]:
        raw, values = _child(raw, key, values[key]), values[key]
    if isinstance(raw, dict):
        raw[path[-1]] = values[path[-1]]


def _path(values: Any, flag: str) -> list[Any] | None:
    """The keys of `values` that a flag's dotted name stands for, or None. Students' names may hold hyphens."""
    path: list[Any] = []
    for part in flag.split("."):
        if isinstance(values, list):
            key: Any = int(part)
        else:
            key = next((key for key in values or {} if key.replace("-", "_") == part), None)
        if key is None:
            return None
        path.append(key)
        values = values[key]
    return path


def _child(raw: Any, key: Any, values: Any) -> Any:
    """The part of the raw recipe under `key`, made where it is not there; shorthands are written out first.

    A path stands for the options that it is one of, and a list of names for a mapping without any.
    """
    found = raw.get(key) if isinstance(raw, dict) else raw[key]
    if isinstance(found, str):
        found = {"path" if "path" in values else "data": found}
    elif isinstance(found, list) and isinstance(values, dict):
        found = {name: {} for name in found}
    elif not isinstance(found, (dict, list)):
        found = {}
    raw[key] = found
    return found
