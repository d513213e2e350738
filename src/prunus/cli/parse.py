"""Parses the arguments of a command."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import tyro
from pydantic import ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from prunus.config import explain
from prunus.errors import RecipeError


def parse_command(command: Any, usage: str, arguments: list[str], default: Any = None) -> Any:
    """A command with its options.

    Args:
        command: Its class.
        usage: How it is called, such as `prunus prune`.
        arguments: The arguments after that.
        default: A command whose options are the defaults.

    Raises:
        RecipeError: The value of an option is not allowed.
        SystemExit: Options cannot be parsed, or help was requested.
    """
    options = {} if default is None else {"default": default}
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_numbers)
    try:
        with registry:
            return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None


def _whole_numbers(option: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """How flags take whole numbers: as recipes do, in which 1e6 is one."""
    if option.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole_number(texts[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def whole_number(text: str) -> int:
    """The number that a text such as `1000`, `1_000` or `1e3` stands for.

    Raises:
        ValueError: It stands for none.
    """
    try:
        return int(text)
    except ValueError:
        with suppress(ValueError, OverflowError):
            if (number := float(text)) == int(number):
                return int(number)
        raise ValueError(f"expected a whole number (found {text!r})") from None
