"""Commands as Python functions: `prunus.prune("model", corpus="text.jsonl", hidden_size=1536, out="student")`.

A function takes its command's arguments by the same names, with underscores: positional arguments first, options of
the command and of its config as keywords, nested options as mappings.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from prunus.config import parse
from prunus.console import Console
from prunus.errors import RecipeError, nearest
from prunus.runtime import Runtime


def __getattr__(name: str) -> Callable[..., Path]:
    """The function of a command."""
    if name.startswith("_"):
        raise AttributeError(name)
    return verb(name)


def verb(name: str) -> Callable[..., Path]:
    """The Python function of a command.

    Args:
        name: A command of one step.
    """
    command = getattr(importlib.import_module(f"prunus.cli.commands.{name}"), name.capitalize())

    def call(*arguments: str | Path, console: Console | None = None, **options: Any) -> Path:
        instance = _command(command, f"prunus.{name}", arguments, options)
        instance(console or Console())
        return Path(instance.out)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"{command.__doc__}\n\nTakes the options that `prunus {name} --help` lists, with underscores in their names, "
        "and returns the result's folder.\n\nRaises:\n    PrunusError: The input cannot be used, or the step fails."
    )
    return call


def _command(command: Any, where: str, arguments: tuple[str | Path, ...], options: dict[str, Any]) -> Any:
    """Build a command from keyword options: parse its runtime, text and config, and check the rest."""
    fields, config = _fields(command), get_type_hints(command).get("config")
    text: Any = fields.pop("text") if dataclasses.is_dataclass(fields.get("text")) else None
    known = [*fields, *(_fields(text) if text else ()), *(config.model_fields if config else ())]
    for key in options:
        if key not in known:
            raise RecipeError(
                f"{where}: unknown option {key!r}{nearest(key, known)}; `{where.replace('.', ' ')} --help` lists them"
            )
    first = next(iter(command.__annotations__))  # the command's positional argument
    if arguments and first in options:
        raise RecipeError(f"{where}: {first} is given twice, by position and by name")
    if arguments:
        options[first] = arguments if len(arguments) > 1 else arguments[0]
    runtime = parse(Runtime, options.pop("runtime", {}), f"{where}: runtime")
    given = {"runtime": runtime, **_converted(fields, options, where)}
    try:
        if text:
            given["text"] = text(**_converted(_fields(text), options, where))
        if config:
            given["config"] = parse(config, options, where)
        return command(**given)
    except TypeError as error:  # from dataclasses, for a missing argument
        raise RecipeError(f"{where}: {str(error).partition('() ')[2] or error}") from None


def _fields(command: Any) -> dict[str, Any]:
    """The options of a command except those of its config, with their types."""
    hints = get_type_hints(command)
    return {field.name: hints[field.name] for field in dataclasses.fields(command) if field.name != "config"}


def _converted(hints: dict[str, Any], options: dict[str, Any], where: str) -> dict[str, Any]:
    """Remove a class's options from `options` and convert them: paths to text, a single value of a list to a tuple."""
    values = {}
    for name in [name for name in hints if name in options]:
        value, hint = options.pop(name), hints[name]
        several = value if isinstance(value, (list, tuple)) else [value]
        taken = tuple(map(_text, several)) if get_origin(hint) is tuple else _text(value)
        try:
            values[name] = TypeAdapter(hint).validate_python(taken)
        except ValidationError as error:
            raise RecipeError(f"{where}: {name} is {value!r:.80}; {error.errors()[0]['msg']}") from None
    return values


def _text(value: Any) -> Any:
    """A path as text; any other value unchanged."""
    return str(value) if isinstance(value, Path) else value
