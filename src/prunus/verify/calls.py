"""Comparison of function calls with possible answers, as in the Berkeley Function-Calling Leaderboard.

Patil et al. 2025, BFCL, section 4 (AST evaluation). Verdicts equal those of `bfcl-eval`'s checker for Python.

A possible answer is `{function: {parameter: [values]}}`; `""` among the values means that the parameter is optional.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prunus.verify.syntax import Call

_TYPES: dict[str, type] = {
    "string": str, "integer": int, "float": float, "number": float, "boolean": bool, "array": list, "tuple": list,
    "dict": dict, "object": dict, "any": str,
}  # fmt: skip


def as_function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{name, description, parameters}`, taken from `{type: function, function: ...}` if necessary."""
    function = tool.get("function", tool)
    return function if isinstance(function, dict) else tool


def match(calls: Sequence[Call], functions: Sequence[Mapping[str, Any]], answers: Sequence[dict[str, Any]]) -> bool:
    """Whether the calls match the possible answers, in any order: one call for each answer, and no others.

    Args:
        calls: The calls, from `syntax.parse`.
        functions: `{name, parameters: {properties, required}}` of each available function.
        answers: The possible answer for each expected call.
    """
    if len(calls) != len(answers):
        return False
    left = list(calls)
    for answer in answers:
        ((name, possible),) = answer.items()
        function = next((one for one in functions if one["name"] == name), None)
        found = next((call for call in left if function and fits(call, function, possible)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def fits(call: Call, function: Mapping[str, Any], possible: dict[str, list[Any]]) -> bool:
    """Whether a call calls the function, with every argument of the right type and among the possible values."""
    parameters = function.get("parameters", {})
    properties, given = parameters.get("properties", {}), call.arguments
    if call.name != function["name"] or any(name not in given for name in parameters.get("required", ())):
        return False
    if any(name not in given and "" not in values for name, values in possible.items()):
        return False
    return all(
        name in properties and name in possible and _allowed(value, possible[name], properties[name])
        for name, value in given.items()
    )


def _allowed(value: Any, possible: list[Any], described: dict[str, Any]) -> bool:
    kind = described.get("type", "any")
    expected = _TYPES.get(kind, str)
    inner = _TYPES.get(described.get("items", {}).get("type", "any"), str) if kind in ("array", "tuple") else None
    if kind == "tuple" and isinstance(value, tuple):
        value = list(value)
    if expected is float and type(value) is int:
        value = float(value)
    known = _known_type(possible)
    if not _of_type(value, possible, expected, inner):
        return False
    if (type(value) is expected and known not in (None, expected)) or type(value) is not expected:
        return value in possible  # a variable, compared as text
    return _among(value, possible, expected, inner)


def _known_type(possible: list[Any]) -> type | None:
    """The type of the first possible value other than `""`."""
    return next((type(value) for value in possible if value != ""), None)


def _of_type(value: Any, possible: list[Any], expected: type[Any], inner: type[Any] | None) -> bool:
    """Whether a value has the type that the function declares, or else the type of the possible values."""
    if type(value) is not expected:
        return type(value) is _known_type(possible)
    if inner is None:
        return True
    return any(not isinstance(one, list) or all(_of_type(item, one, inner, None) for item in value) for one in possible)


def _among(value: Any, possible: list[Any], expected: type, inner: type | None) -> bool:
    if expected is dict:
        return _dict_among(value, possible)
    if inner is dict:
        return any(
            len(value) == len(one) and all(_dict_among(item, [other]) for item, other in zip(value, one, strict=True))
            for one in possible
        )
    if expected is str:
        return _plain(value) in [_plain(one) for one in possible if isinstance(one, str)]
    if expected is list:
        return [_plain(item) for item in value] in [[_plain(item) for item in one] for one in possible]
    return value in possible


def _dict_among(value: dict[str, Any], possible: list[Any]) -> bool:
    for one in possible:
        if one == "":
            continue
        known = all(key in one and _plain(item) in map(_plain, one[key]) for key, item in value.items())
        if known and all(key in value or "" in values for key, values in one.items()):
            return True
    return False


def _plain(value: Any) -> Any:
    """Text without spaces and most punctuation, in lower case, with one kind of quotation mark."""
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if isinstance(value, str) else value
