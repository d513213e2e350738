"""Command-line flags over a recipe: each value is set in the raw YAML, as if it were written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def override(raw: dict[str, Any], values: dict[str, Any], flags: Sequence[str]) -> None:
    """Set the flags' values in `raw`.

    Args:
        raw: The recipe as read from YAML; changed in place.
        values: The whole recipe, parsed with the flags.
        flags: Dotted names, such as `students.width.prune.hidden-size`; unknown ones are ignored.
    """
    for flag in flags:
        _put(raw, values, flag.replace("-", "_"))


def replace_at(raw: dict[str, Any], values: dict[str, Any], name: str, value: Any) -> None:
    """Set a section or an option of `raw`.

    Args:
        raw: The recipe as read from YAML; changed in place.
        values: The whole recipe, parsed.
        name: Dotted name, such as `students.width.distill.states`.
        value: The new value.
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
    """The keys of `values` on the path that a dotted name describes, or None. Students' names may contain hyphens."""
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
    """The section of the raw recipe under `key`, created if it is missing.

    Shorthands are expanded: a text to `{path: text}` or `{data: text}`, a list of names to a mapping without options.
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
