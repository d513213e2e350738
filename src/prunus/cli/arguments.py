"""What is wrong with a command's arguments: all mistakes in one message, in the words of a recipe's mistakes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prunus.cli.call import Call
from prunus.cli.options import Option, options_of
from prunus.mistakes import mistakes, refuse
from prunus.pipeline.override import replace_at
from prunus.pipeline.recipe import Recipe


def check_arguments(
    command: Any,
    usage: str,
    arguments: Sequence[str],
    flags: Collection[str],
    recipe: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> None:
    """Refuse arguments that do not fit a command.

    Args:
        command: The command's class.
        usage: How it is called, such as `prunus prune`.
        arguments: The arguments after that.
        flags: All flags that it has, with hyphens for underscores.
        recipe: Of a command on a recipe: the recipe as read, which is changed in place, and all its values, both plain.

    Raises:
        RecipeError: Names each flag and argument, its value and what is allowed.
    """
    raw: dict[str, Any] = {"recipe": recipe[0]} if recipe else {}
    values: dict[str, Any] = {"recipe": recipe[1]} if recipe else {}
    options = options_of(command, values)
    call = Call(usage, options, flags)
    call.read(arguments)
    _complete(values, call.values)
    for option, value in call.values.items():
        replace_at(raw, values, ".".join(option.path).replace("-", "_"), value)
    lines = [f"{name}: {text}" for name, text in call.refused.items()]
    try:
        if recipe:
            Recipe.model_validate(raw["recipe"])
        else:
            _validate(command, raw, {option.path for option in options.values()})
    except ValidationError as error:
        named = {option.path: option.name for option in (call.values if recipe else options.values())}
        cls, prefix = (Recipe, ["recipe"]) if recipe else (command, [])
        found = mistakes(cls, error, lambda path: spell([*prefix, *path], named, usage))
        lines += [line for line in found if line.partition(": ")[0] not in call.refused]
    refuse(lines, usage)


def _validate(command: Any, raw: dict[str, Any], options: Collection[tuple[str, ...]]) -> None:
    """Validate the fields of a command. A section without options is complete if none of its options is required.

    Raises:
        ValidationError: An option is missing or invalid.
    """
    while True:
        try:
            TypeAdapter(command).validate_python(raw)
            return
        except ValidationError as error:
            missing = [tuple(map(str, item["loc"])) for item in error.errors() if item["type"] == "missing"]
            sections = [path for path in missing if not any(path[:end] in options for end in range(len(path) + 1))]
            if not sections:
                raise
            for *path, last in sections:
                part = raw
                for key in path:
                    part = part[key]
                part[last] = {}


def _complete(values: dict[str, Any], options: Iterable[Option]) -> None:
    """Add the sections that the options are in, where they are missing."""
    for option in options:
        part = values
        for key in option.path[:-1]:
            if isinstance(part, list):
                part = part[int(key)]
            else:
                part[key] = {} if part.get(key) is None else part[key]
                part = part[key]


def spell(path: Sequence[str], names: Mapping[tuple[str, ...], str], usage: str) -> str:
    """How messages name an option or a section of a command.

    Args:
        path: The keys on the way to it.
        names: Path -> flag or argument.
        usage: Names the whole command.
    """
    for end in range(len(path), 0, -1):  # an index or a key in a list or mapping is left out
        if (name := names.get(tuple(path[:end]))) is not None:
            return name
    if path[:1] == ["recipe"]:
        return ".".join(path[1:]) or usage
    inside = next(((place, name) for place, name in names.items() if list(place[: len(path)]) == path), None)
    parts = inside[1].split(".")[: len(path) - len(inside[0])] if inside else []
    return ".".join(parts) or usage
