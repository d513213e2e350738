"""Parser of budgets such as `q4_k_m file <= 2.0 GB, context 8192 in <= 3 GB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = r"\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([a-zµ%/'’ ]*)", re.IGNORECASE)
_CLAUSE = re.compile(r"(.+?)\s*(?:<=|≤|<|at most)\s*(.+)", re.IGNORECASE)
_WHAT: dict[str, re.Pattern[str]] = {
    "file": re.compile(r"(?:(?P<format>[\w-]+) )?file"),
    "memory": re.compile(
        r"(?:(?P<format>(?!context|memory)[\w-]+) )?(?:memory (?:at )?)?context (?P<context>[\d_]+)"
        r"(?:,? batch (?P<batch>[\d_]+))?(?: in)?"
    ),
    "non_embedding_parameters": re.compile(r"non[- _]embedding(?:[ _]parameters)?"),
    "parameters": re.compile(r"parameters"),
    "flops": re.compile(r"flops?(?: per token)?(?: at (?:context )?(?P<context>[\d_]+))?"),
    "latency": re.compile(
        r"(?:(?P<engine>torch|llama\.cpp) )?(?:(?P<format>[\w-]+) )?(?:decode|latency)(?: latency)?(?: per token)?"
        r"(?: at (?:context )?(?P<context>[\d_]+))?"
    ),
}
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BINARY = {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
FORMS = (
    "`q4_k_m file <= 2 GB`, `context 8192 batch 4 in <= 3 GB`, `parameters <= 4B`, `non-embedding <= 50%`, "
    "`flops per token <= 8 G`, `decode <= 20 ms`"
)
"""Examples of limits, for messages."""


def parse_budget(text: str) -> list[dict[str, Any]]:
    """The limits of a budget, as the options of `Limit`.

    Raises:
        ValueError: A clause is not a limit; names it and gives examples.
    """
    clauses = [clause.strip() for clause in re.split(r"[,;]\s+(?!batch )", text.strip()) if clause.strip()]
    return [_limit(clause) for clause in clauses]


def _limit(clause: str) -> dict[str, Any]:
    parts = _CLAUSE.fullmatch(clause)
    if parts is None:
        raise ValueError(f"{clause!r} is not a limit; examples: {FORMS}")
    left, right = re.sub(r"\s+", " ", parts[1].strip().lower()), parts[2].strip()
    for what, pattern in _WHAT.items():
        match = pattern.fullmatch(left)
        if match is not None:
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            numbers: dict[str, Any] = {key: int(groups[key]) for key in ("context", "batch") if key in groups}
            return {"what": what, **groups, **numbers, "at_most": right}
    raise ValueError(f"{left!r} cannot be limited; examples: {FORMS}")


def quantity(value: Any, what: str) -> dict[str, Any]:
    """A number with a unit as a plain number: bytes, parameters, FLOPs or seconds. A percentage becomes a share.

    Raises:
        ValueError: It is not a number, or the unit is unknown.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"at_most": float(value)}
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a number; examples: {_EXAMPLES[what]}")
    number, unit = float(match[1].replace("_", "")), match[2].strip().lower()
    if unit == "%" or unit.startswith("% "):
        return {"at_most": number / 100, "of_teacher": True}
    factor = _factor(unit, what)
    if factor is None:
        raise ValueError(f"{value!r}: unknown unit {unit!r}; examples: {_EXAMPLES[what]}")
    return {"at_most": number * factor}


_EXAMPLES = {
    "file": "`2.0 GB`, `1.9 GiB` or `50%` of the teacher's",
    "memory": "`3 GB`, `2.8 GiB` or `50%` of the teacher's",
    "parameters": "`4B`, `135M` or `50%` of the teacher's",
    "non_embedding_parameters": "`4B`, `135M` or `50%` of the teacher's",
    "flops": "`8 GFLOP` or `50%` of the teacher's",
    "latency": "`20 ms` or `50%` of the teacher's",
}


def _factor(unit: str, what: str) -> float | None:
    """The factor of a unit, or None if the unit does not apply to this quantity."""
    if what == "latency":
        return _SECONDS.get(unit)
    if what in ("file", "memory"):
        bare = re.sub(r"(bytes?|b)$", "", unit).strip() if unit != "b" else ""
        return _BINARY.get(bare, _SCALES.get(bare) if bare != "b" else None)
    bare = re.sub(r"\s*(parameters|params|flops?(/token| per token)?)$", "", unit)
    return _SCALES.get(bare)


def from_yaml(raw: Any) -> list[Any]:
    """A budget from YAML (a text, a mapping, or a list of either) as a list of mappings.

    Raises:
        ValueError: It is not a budget.
    """
    if isinstance(raw, str):
        return parse_budget(raw)
    if isinstance(raw, Mapping):
        return [raw]
    if not isinstance(raw, (list, tuple)):
        raise ValueError(f"{raw!r} is not a budget; examples: {FORMS}")
    return [limit for item in raw for limit in (parse_budget(item) if isinstance(item, str) else [item])]
