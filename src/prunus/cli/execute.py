"""Runs a command, given its name and arguments."""

from __future__ import annotations

import importlib
from typing import get_type_hints

from prunus import distributed
from prunus.cli.pages import expand_shorthands
from prunus.cli.parse import parse_command
from prunus.console import Console


def execute(name: str, arguments: list[str]) -> None:
    """Parse the options of one command and run it.

    Args:
        name: The command; its class is in the module of that name.
        arguments: The arguments after the name.

    Raises:
        PrunusError: The input cannot be used.
        SystemExit: Options cannot be parsed (2), or help was requested (0).
    """
    command = getattr(importlib.import_module(f"prunus.cli.commands.{name}"), name.capitalize())
    console = Console(quiet=distributed.rank() > 0)
    fields = get_type_hints(command)
    if "recipe" in fields:
        from prunus.cli.recipe import with_recipe

        with_recipe(command, name, arguments)(console)
        return
    if "config" in fields:
        arguments = expand_shorthands(fields["config"], arguments, fields)
    parse_command(command, f"prunus {name}", arguments)(console)
