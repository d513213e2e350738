"""Parses the arguments of a command."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from typing import Any

import tyro
from pydantic import ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from prunus.cli.arguments import check_arguments
from prunus.cli.options import whole_number
from prunus.errors import RecipeError
from prunus.mistakes import explain

_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")


def parse_command(
    command: Any, usage: str, arguments: list[str], default: Any = None, raw: dict[str, Any] | None = None
) -> Any:
    """A command with its options.

    Args:
        command: Its class.
        usage: How it is called, such as `prunus prune`.
        arguments: The arguments after that.
        default: A command on a recipe, whose options are the defaults.
        raw: That recipe as read.

    Raises:
        RecipeError: Names every flag and argument that cannot be used.
        SystemExit: Help was requested.
    """
    options = {} if default is None else {"default": default}
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_numbers)
    report = io.StringIO()
    try:
        with registry, redirect_stderr(report):
            return tyro.cli(command, prog=usage, args=arguments, **options)
    except (ValidationError, IndexError) as error:
        # tyro 1.0.0 takes `args[0]` of a ValidationError, which has none
        cause = error if isinstance(error, ValidationError) else error.__context__
        if not isinstance(cause, ValidationError):
            raise
        message = explain(command, cause, usage)
    except SystemExit as end:
        if not end.code:
            raise
        words = [word for word in report.getvalue().split() if any(map(str.isalnum, word))]  # without the box
        message = f"{usage}: {' '.join(words)}"
    check_call(command, usage, arguments, default, raw)
    raise RecipeError(message)  # a mistake that tyro sees and `check_call` does not


def check_call(
    command: Any, usage: str, arguments: list[str], default: Any = None, raw: dict[str, Any] | None = None
) -> None:
    """Refuse arguments that do not fit a command; the arguments are those of `parse_command`.

    Raises:
        RecipeError: Names every flag and argument that cannot be used.
    """
    options = {} if default is None else {"default": default}
    recipe = None if raw is None else (deepcopy(raw), default.recipe.model_dump(mode="json"))
    check_arguments(command, usage, arguments, _flags(command, options), recipe)


def _flags(command: Any, options: dict[str, Any]) -> list[str]:
    """The flags in a command's help, with hyphens for underscores."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        tyro.cli(command, args=["--help"], **options)
    return list(dict.fromkeys(flag.replace("_", "-") for flag in _FLAG.findall(text.getvalue())))


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
