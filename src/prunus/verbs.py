"""Commands as Python functions: `prunus.prune("model", corpus="text.jsonl", hidden_size=1536, out="student")`.

A verb takes what its command takes, by the same names with underscores: positional arguments first, options of the
command and of its config by keyword, nested options as mappings.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

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
    """The function that does what a command does.

    Args:
        name: A command of one step.
    """
    command = getattr(importlib.import_module(f"prunus.cli.commands.{name}"), name.capitalize())

    def call(*arguments: str | Path, console: Console | None = None, **options: Any) -> Path:
        made = _command(command, f"prunus.{name}", arguments, options)
        made(console or Console())
        return Path(made.out)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"{command.__doc__}\n\nTakes what `prunus {name} --help` lists, by the same names with underscores, and "
        "returns the folder of the result.\n\nRaises:\n    PrunusError: The input cannot be used, or the step fails."
    )
    return call


def _command(command: Any, where: str, arguments: tuple[str | Path, ...], options: dict[str, Any]) -> Any:
    """A command with its options, each as the class that it has them in."""
    fields, config = _fields(command), get_type_hints(command).get("config")
    text: Any = fields.pop("text") if dataclasses.is_dataclass(fields.get("text")) else None
    known = [*fields, *(_fields(text) if text else ()), *(config.model_fields if config else ())]
    for key in options:
        if key not in known:
            raise RecipeError(
                f"{where}: unknown option {key!r}{nearest(key, known)}; `help({where})` says where they are"
            )
    given = {key: _as(hint, options.pop(key)) for key, hint in fields.items() if key in options and key != "runtime"}
    given["runtime"] = parse(Runtime, options.pop("runtime", {}), f"{where}: runtime")
    if arguments:
        first = next(iter(command.__annotations__))  # what stands behind the command without a flag
        given[first] = _as(fields[first], arguments if len(arguments) > 1 else arguments[0])
    try:
        if text:
            own = {key: _as(hint, options.pop(key)) for key, hint in _fields(text).items() if key in options}
            given["text"] = text(**own)
        if config:
            given["config"] = parse(config, options, where)
        return command(**given)
    except TypeError as error:  # of dataclasses, for what is missing
        raise RecipeError(f"{where}: {str(error).partition('() ')[2] or error}") from None


def _fields(command: Any) -> dict[str, Any]:
    """The options of a command but those of its config, with their types."""
    hints = get_type_hints(command)
    return {field.name: hints[field.name] for field in dataclasses.fields(command) if field.name != "config"}


def _as(hint: Any, value: Any) -> Any:
    """A value as a command has it: paths as texts, and one of several in a tuple."""
    if get_origin(hint) is tuple and get_args(hint)[0] is str:
        several = (value,) if isinstance(value, (str, Path)) else value
        return tuple(map(str, several))
    return str(value) if isinstance(value, Path) else value
