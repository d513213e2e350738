"""Parser of function calls as models write them, in JSON or Python syntax; nothing is executed."""

from __future__ import annotations

import ast
import json
import operator
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A function's name and its arguments by name."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


_TAGGED = re.compile(r"<(tool_call|TOOLCALL|function_call|tool_calls)>(.*?)(?:</\1>|$)", re.DOTALL)
_NAMED = re.compile(r"<function=([^>]+)>(.*?)</function>", re.DOTALL)
_MARKS = re.compile(r"^(?:<\|python_tag\|>|\[TOOL_CALLS\]|<functioncall>)\s*")
_FENCE = re.compile(r"^```(?:json|python|tool_call|tool_code)?\s*\n(.*?)\n?```$", re.DOTALL)


def parse(text: str) -> list[Call]:
    """The calls that an answer consists of; empty if it is prose or cannot be parsed.

    Accepted: a call or a list of calls as `{"name": ..., "arguments": {...}}` or as `f(x=1)`, bare, in a code fence, or
    in models' usual tags. Positional arguments are ignored, since calls are matched by argument names.
    """
    tagged = [inner for _, inner in _TAGGED.findall(text)]
    named = _NAMED.findall(text)
    if named:
        found = [_of(name.strip(), _json(arguments)) for name, arguments in named]
        return found if all(call is not None for call in found) else []  # type: ignore[return-value]
    calls: list[Call] = []
    for part in tagged or [text]:
        bare = _MARKS.sub("", part.strip())
        fenced = _FENCE.match(bare)
        read = _read(fenced.group(1) if fenced else bare)
        if not read:
            return []
        calls += read
    return calls


def _read(text: str) -> list[Call]:
    return _from_json(text) or _from_python(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_json(text: str) -> list[Call]:
    """Calls from one JSON value, or several separated by semicolons or white space."""
    decoder = json.JSONDecoder()
    values: list[Any] = []
    place = 0
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        values += value if isinstance(value, list) else [value]
        place += len(text[place:]) - len(text[place:].lstrip("; \n\t\r"))
    calls = [_call(value) for value in values]
    return [call for call in calls if call is not None] if all(calls) else []


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    value = value["function"] if isinstance(value.get("function"), dict) else value
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if isinstance(name, str):
        return _of(name, arguments)
    if len(value) == 1:  # {"f": {"x": 1}}
        ((name, arguments),) = value.items()
        return _of(name, arguments)
    return None


def _of(name: str, arguments: Any) -> Call | None:
    return Call(name, arguments) if isinstance(arguments, dict) else None


def _from_python(text: str) -> list[Call]:
    try:
        body = ast.parse(text.strip().strip("'"), mode="eval").body
        nodes = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
        if not all(isinstance(node, ast.Call) and _dotted(node.func) for node in nodes):
            return []
        return [_python_call(node) for node in nodes if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # such as too deep nesting
        return []


def _dotted(node: ast.expr) -> str:
    """`a.b.c`, or an empty text if the node is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _python_call(node: ast.Call) -> Call:
    return Call(_dotted(node.func), {word.arg: _value(word.value) for word in node.keywords if word.arg})


_SUMS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip


def _value(node: ast.expr) -> Any:
    """The value of a literal or of arithmetic on small numbers; the source text of anything else."""
    if isinstance(node, ast.Constant):
        return "..." if node.value is Ellipsis else node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key): _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and node.keywords:
        inner = _python_call(node)
        return {inner.name: inner.arguments}
    return _sum(node) if isinstance(node, (ast.BinOp, ast.UnaryOp)) else ast.unparse(node)


def _sum(node: ast.BinOp | ast.UnaryOp) -> Any:
    if isinstance(node, ast.UnaryOp):
        inside = _value(node.operand)
        return -inside if isinstance(node.op, ast.USub) and isinstance(inside, (int, float)) else ast.unparse(node)
    left, right = _value(node.left), _value(node.right)
    small = all(isinstance(side, (int, float)) and abs(side) < 1e6 for side in (left, right))
    if type(node.op) not in _SUMS or not small or (isinstance(node.op, ast.Pow) and abs(right) > 64):
        return ast.unparse(node)
    try:
        return _SUMS[type(node.op)](left, right)
    except ArithmeticError:
        return ast.unparse(node)
