"""From arguments to a command with its options."""

from __future__ import annotations

from typing import Any

import tyro
from pydantic import ValidationError

from prunus.config import explain
from prunus.errors import RecipeError


def parsed(command: Any, usage: str, arguments: list[str], default: Any = None) -> Any:
    """A command with its options.

    Args:
        command: Its class.
        usage: What is typed to call it.
        arguments: What stands behind that.
        default: A command whose options are the defaults.

    Raises:
        RecipeError: An option has a value that it cannot have.
        SystemExit: Options cannot be parsed, or help was asked for.
    """
    options = {} if default is None else {"default": default}
    try:
        return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None
