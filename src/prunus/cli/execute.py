"""From a command's name and arguments to its work."""

from __future__ import annotations

import importlib
from typing import get_type_hints

from prunus import distributed
from prunus.cli.pages import spelled_out
from prunus.cli.parse import parsed
from prunus.console import Console


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
