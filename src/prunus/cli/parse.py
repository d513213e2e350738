"""From arguments to a command: its class, found by its name, and its options."""

from __future__ import annotations

import importlib
from typing import Any, get_type_hints

import tyro
from pydantic import ValidationError

from prunus import distributed
from prunus.cli.pages import spelled_out
from prunus.config import explain
from prunus.console import Console
from prunus.errors import RecipeError


def execute(name: str, arguments: list[str]) -> None:
    """Parse the options of one command and do it.

    Args:
        name: The command, whose class stands in the module of its name.
        arguments: What stands behind it.

    Raises:
        PrunusError: The input cannot be used.
        SystemExit: Options cannot be parsed (2), or help was asked for (0).
    """
    command = getattr(importlib.import_module(f"prunus.cli.commands.{name}"), name.capitalize())
    console = Console(quiet=distributed.rank() > 0)
    own = get_type_hints(command)
    if "recipe" in own:
        from prunus.cli.recipe import with_recipe

        with_recipe(command, name, arguments)(console)
        return
    if "config" in own:
        arguments = spelled_out(own["config"], arguments, own)
    parsed(command, f"prunus {name}", arguments)(console)


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
