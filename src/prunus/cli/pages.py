"""Help on a recipe's options (an overview, and a page per section with the recipe's values), and section shorthands."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_origin

from pydantic import BaseModel

from prunus.config import parse_named
from prunus.errors import RecipeError, nearest
from prunus.mistakes import classes_in

_WIDTH = 100
_SHOWN = 60


def page(cls: type[BaseModel], values: Any, section: str, usage: str) -> str:
    """The text of `prunus run RECIPE --help [SECTION]`.

    Args:
        cls: The class of recipes.
        values: The recipe as plain values, as far as it can be read.
        section: The dotted name of a section, such as `students.width.prune`; empty for the whole recipe.
        usage: The command with the recipe's file.

    Raises:
        RecipeError: There is no such section; lists those that exist.
    """
    known = sections(cls, values)
    name = _section(known, section)
    cls, values = known[name]
    lines = [f"usage: {usage} [--{f'{name}.' if name else ''}OPTION VALUE ...]", ""]
    for field, info in cls.model_fields.items():
        below = f"{name}.{field}" if name else field
        inside = [other for other in known if other == below or other.startswith(f"{below}.")]
        value = values.get(field) if isinstance(values, Mapping) else None
        lines.append(f"  {below}" + ("" if inside else f" = {_text(info.get_default() if value is None else value)}"))
        lines += textwrap.wrap(" ".join((info.description or "").split()), _WIDTH, initial_indent=" " * 6,
                               subsequent_indent=" " * 6)  # fmt: skip
        if inside:
            lines.append(f"      {usage} --help {inside[0]}")
    return "\n".join(lines) + "\n"


def own_options(command: type) -> str:
    """The help of a command's own options, which are no part of the recipe, by the docstrings under its fields."""
    texts: dict[str, str] = {}
    for cls in reversed(command.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, doc in pairwise(body.body):
            if not isinstance(field, ast.AnnAssign):
                continue
            name = ast.unparse(field.target)
            if "Suppress" in ast.unparse(field.annotation):
                texts.pop(name, None)
            elif isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                texts[name] = " ".join(str(doc.value.value).split())
    lines = []
    for name, text in texts.items():
        lines += [f"  --{name.replace('_', '-')}"]
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _section(known: Iterable[str], query: str) -> str:
    """The name of the section that the user typed.

    Raises:
        RecipeError: There is no such section; lists those that exist.
    """
    name = _named(known, query)
    if name is not None:
        return name
    below = [other for other in known if other.rpartition(".")[0] == query]
    if below:  # a mapping or a list of sections
        raise RecipeError(f"--help {query}: has several sections; choose one: {', '.join(below)}")
    top = dict.fromkeys(other.partition(".")[0] for other in known if other)
    raise RecipeError(f"--help {query}: unknown section{nearest(query, list(known))}; allowed: {', '.join(top)}")


def shorthands(
    cls: type[BaseModel], values: Any, flags: Sequence[str], others: Container[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Separate flags that set a whole section by a shorthand, as recipes can, from other flags.

    Args:
        cls: The class of the recipe, or of a command's options.
        values: The recipe as plain values.
        flags: Such as `--distill.states none --distill.tokens 100`.
        others: Names of flags that do not belong to the class.

    Returns:
        Shorthands by the sections' dotted names, such as `{"distill.states": "none"}`, and the remaining flags.
    """
    known, short, left = sections(cls, values), {}, []
    rest = list(flags)
    while rest:
        flag, joined, word = rest.pop(0).partition("=")
        name = _named(known, flag.removeprefix("--")) if flag.startswith("--") else None
        name = None if name in others else name
        if name and not joined and rest and not rest[0].startswith("--"):
            joined, word = "=", rest.pop(0)
        if name and joined:
            short[name] = word
        else:
            left.append(flag + joined + word)
    return short, left


def expand_shorthands(cls: type[BaseModel], flags: Sequence[str], others: Container[str] = ()) -> list[str]:
    """A command's flags, with each section's shorthand replaced by the options that it stands for.

    Args:
        cls: The class of the command's options.
        flags: The arguments as typed.
        others: Names of flags that do not belong to the class.

    Raises:
        RecipeError: A shorthand is unknown.
    """
    short, left = shorthands(cls, {}, flags, others)
    known = sections(cls, {})
    expanded: list[str] = []
    for name, word in short.items():
        flag = f"--{name}".replace("_", "-")
        section = parse_named(known[name][0], word, lambda path, flag=flag: ".".join([flag, *path]), flag)  # type: ignore[misc]
        expanded += _flags(name, section.model_dump(exclude_defaults=True))
    first = next((place for place, part in enumerate(left) if part.startswith("-")), len(left))
    # after positional arguments, which a list option would swallow; before other flags, since the last one counts
    return [*left[:first], *expanded, *left[first:]]


def _flags(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The flags of a section's options and of its subsections."""
    for option, value in values.items():
        flag = f"--{name}.{option}".replace("_", "-")
        if isinstance(value, dict):
            yield from _flags(f"{name}.{option}", value)
        elif isinstance(value, bool):
            yield flag if value else f"--{name}.no-{option}".replace("_", "-")
        else:
            yield from (flag, *map(str, value if isinstance(value, (list, tuple)) else [value]))


def _named(known: Iterable[str], name: str) -> str | None:
    """The section with a dotted name, in which hyphens and underscores are equal."""
    plain = name.replace("-", "_")
    return next((one for one in known if one.replace("-", "_") == plain), None)


def sections(cls: type[BaseModel], value: Any, name: str = "") -> dict[str, tuple[type[BaseModel], Any]]:
    """A section and all sections below it, by dotted name: the class of the options, and their values."""
    found = {name: (cls, value)}
    for field, info in cls.model_fields.items():
        inner = next(classes_in(info.annotation), None)
        if inner is None:
            continue
        child = value.get(field) if isinstance(value, Mapping) else None
        below = f"{name}.{field}" if name else field
        if isinstance(child, (list, tuple)):
            parts = {f"{below}.{i}": item for i, item in enumerate(child)}
        elif get_origin(info.annotation) is dict:
            parts = {f"{below}.{key}": item for key, item in child.items()} if isinstance(child, Mapping) else {}
        else:
            parts = {below: child}
        for key, item in parts.items():
            found |= sections(inner, item, key)
    return found


def _text(value: Any) -> str:
    """A value as written in a recipe, truncated if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
