"""Parses the arguments of a command."""

from __future__ import annotations

from typing import Any

import tyro
from pydantic import ValidationError

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
    try:
        return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None
