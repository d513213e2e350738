"""Messages about invalid values: pydantic's errors in the words of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from prunus.environment import as_written
from prunus.errors import Mistakes, RecipeError, among, nearest
from prunus.keys import hide


def refuse(lines: Iterable[str], where: str) -> None:
    """Raise mistakes as one error, if there are any.

    Raises:
        RecipeError: The only mistake, or a list of them that `where` introduces.
    """
    found = Mistakes()
    found.errors += map(RecipeError, lines)
    found.check(where)


def explain(cls: Any, error: ValidationError, where: str) -> str:
    """Pydantic's errors, one line each: the dotted name, the value and what is allowed."""
    lines = mistakes(cls, error)
    return f"{where} cannot be used:\n" + "\n".join(f"  {line}" for line in lines)


def mistakes(cls: Any, error: ValidationError, spell: Callable[[list[str]], str] = ".".join) -> list[str]:
    """Pydantic's errors as lines: the name, what is allowed, and the value.

    Args:
        cls: The config class.
        error: What pydantic raised.
        spell: The name of an option in messages, given the keys on the way to it.
    """
    items = error.errors(include_url=False)
    parts = [_parts(cls, item, spell) for item in items if not _follows(item, items)]
    values = {name: found for name, _, found in parts if found}
    lines: dict[tuple[str, str], list[str]] = {}
    for name, text, found in parts:
        lines.setdefault((name, found or values.get(name, "")), []).append(text)
    return [f"{name}: {_either(texts)}{found}" for (name, found), texts in lines.items()]


def _either(texts: Sequence[str]) -> str:
    """What one option expects, from pydantic's errors for each type that it may have."""
    first, *others = dict.fromkeys(texts)
    return "".join([first, *(f", or {text.removeprefix('expected ')}" for text in others)])


def _follows(item: Any, items: Sequence[Any]) -> bool:
    """Whether an error only repeats another: an inherited one, or a list that is empty because its entries are bad."""
    loc, kind = item["loc"], item["type"]
    for other in items:
        inherited = len(other["loc"]) < len(loc) and loc[-len(other["loc"]) :] == other["loc"] and kind == other["type"]
        emptied = kind == "too_short" and len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc
        if inherited or emptied:
            return True
    return False


def _parts(cls: Any, item: Any, spell: Callable[[list[str]], str]) -> tuple[str, str, str]:
    """The name of the option in an error, what is wrong, and the value in brackets."""
    path = [str(part) for part in item["loc"] if not _BRANCH.match(str(part))]
    if path and path[-1] in _SCALARS and item["type"].startswith(path[-1]):
        path.pop()  # the branch of a union
    name = spell(path) or "(top level)"
    value = item["input"]
    if item["type"] == "extra_forbidden":
        keys = _fields_at(cls, path[:-1])
        help_flag = " ".join(["--help", *filter(None, [".".join(path[:-1])])])
        return name, f"unknown key{among(path[-1], keys, 'allowed here', f'`{help_flag}`')}", ""
    if item["type"] == "missing":
        return name, "missing; it has no default" if isinstance(item["loc"][-1], str) else "too few values", ""
    text = _text(item)
    if item["type"] == "value_error" and (named := _NAMED.match(text)) and named[1] in _fields_at(cls, path):
        name, text = (
            spell([*path, *named[0][:-2].split(".")]),
            text[named.end() :],
        )  # of a section, about one of its options
    if isinstance(value, (dict, list, BaseModel)):
        return name, text, ""
    shown = hide(as_written(value)) if isinstance(value, str) else value
    return name, text + _hint(item, value), f" (found {_cut(repr(shown))})"


def _text(item: Any) -> str:
    """What an error says is allowed."""
    words = _WORDS.get(item["type"])
    if words is not None:
        return words.format(**{key: _limit(value) for key, value in item.get("ctx", {}).items()})
    text = item["msg"].removeprefix("Value error, ")
    return re.sub("^Input should be ", "expected ", text)


def _limit(value: Any) -> Any:
    """A limit as a recipe would have it."""
    return f"{value:_}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value


def _hint(item: Any, value: Any) -> str:
    """What would make a value allowed: quotes, or another spelling."""
    if item["type"] == "string_type" and isinstance(value, (int, float)):
        return "; put it in quotes"
    if item["type"] == "literal_error" and isinstance(value, str):
        return nearest(value, _QUOTED.findall(item["ctx"]["expected"]))
    return ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 200  # the most characters of a value in a message
_QUOTED = re.compile(r"'([^']*)'")  # a choice in pydantic's list of those expected
_NAMED = re.compile(r"([a-z]\w*)(\.\w+)*: ")  # an option's name before a message about it
_SCALARS = ("bool", "int", "float", "str")
_BRANCH = re.compile(r"(literal|tuple|list)\[")  # pydantic's name for a branch of a union: not a key of the input
_WORDS = {
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping of options",
    "string_type": "expected text",
    "int_parsing": "expected a whole number, such as 1_000_000",
    "int_from_float": "expected a whole number, such as 1_000_000",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "greater_than_equal": "expected at least {ge}",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected at most {le}",
    "less_than": "expected less than {lt}",
    "string_pattern_mismatch": "expected text that matches {pattern}",
    "too_short": "expected at least 1",
    "too_long": "expected at most {max_length} values",
}


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    """The keys accepted by the class of options at `path` below `cls`."""
    for part in path:
        cls = next(iter(classes_in(_annotations(cls).get(part, cls))), None)
    return list(_annotations(cls))


def _annotations(cls: Any) -> dict[str, Any]:
    """The fields of a config class or a command, with their types."""
    if is_dataclass(cls):
        return get_type_hints(cls)
    return {name: info.annotation for name, info in getattr(cls, "model_fields", {}).items()}


def classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config classes in a field's annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from classes_in(argument)
