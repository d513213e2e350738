"""Parses the arguments of a command."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

import tyro
from pydantic import ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from prunus.config import explain
from prunus.errors import Mistakes, RecipeError, among

_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")


def parse_command(command: Any, usage: str, arguments: list[str], default: Any = None) -> Any:
    """A command with its options.

    Args:
        command: Its class.
        usage: How it is called, such as `prunus prune`.
        arguments: The arguments after that.
        default: A command whose options are the defaults.

    Raises:
        RecipeError: An option is unknown, or its value is not allowed.
        SystemExit: Options cannot be parsed, or help was requested.
    """
    options = {} if default is None else {"default": default}
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_numbers)
    report = io.StringIO()
    try:
        with registry, redirect_stderr(report):
            return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None
    except SystemExit as end:
        if end.code:
            _check_flags(arguments, _flags(command, options), usage)
        sys.stderr.write(report.getvalue())
        raise


def _check_flags(arguments: Sequence[str], known: Sequence[str], usage: str) -> None:
    """Refuse flags that a command does not have, which tyro reports with the whole help of similar ones.

    Raises:
        RecipeError: Names each, and the flags that are spelt most like it.
    """
    mistakes = Mistakes()
    for flag in arguments:
        name = flag.partition("=")[0].replace("_", "-")
        if _FLAG.fullmatch(name) and name not in known:
            with mistakes.collect():
                raise RecipeError(f"{name}: unknown option{among(name, known, everything=f'`{usage} --help`')}")
    mistakes.check(usage)


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
