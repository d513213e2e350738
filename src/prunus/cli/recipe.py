"""Parses `RECIPE [options]` to a recipe with the flags applied."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunus.cli.arguments import spell
from prunus.cli.commands.run import Run
from prunus.cli.pages import own_options, page, shorthands
from prunus.cli.parse import check_call, parse_command
from prunus.config import parse, parse_named
from prunus.errors import RecipeError
from prunus.pipeline.override import override, replace_at
from prunus.pipeline.recipe import Recipe, read_recipe


def with_recipe(command: type[Run], name: str, arguments: list[str]) -> Run:
    """Parse `RECIPE [options]`. The flags' defaults are the recipe's values.

    Flags are written into the raw recipe, which is then validated as a whole, so that a flag is inherited (by students,
    or as `seed`) exactly like the same line in the file.
    """
    usage = f"prunus {name} RECIPE"
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(f"usage: {usage} [OPTIONS]\n\n{command.__doc__}\n\n{own_options(command)}")
            print(f"{usage} --help lists the recipe's sections; --help SECTION lists the options of one.")
            sys.exit(0)
        raise RecipeError(f"no recipe given; usage: {usage} [OPTIONS]")
    file, *flags = arguments
    raw = read_recipe(Path(file))
    if flags and flags[0] in ("-h", "--help"):
        _show_options(raw, file, " ".join(flags[1:]), f"prunus {name} {file}")
    recipe = parse(Recipe, raw, file)
    values = recipe.model_dump(mode="json")
    short, flags = shorthands(Recipe, values, flags)
    if short:
        recipe = _with_shorthands(raw, values, short, usage)
    given: Run = parse_command(command, usage, flags, command(recipe=recipe), raw)
    names = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    before = deepcopy(raw)
    override(raw, given.recipe.model_dump(mode="json"), names)
    try:
        return replace(given, recipe=parse(Recipe, raw, file))
    except RecipeError:
        check_call(command, usage, flags, command(recipe=recipe), before)
        raise


def _with_shorthands(raw: dict[str, Any], values: dict[str, Any], short: dict[str, str], usage: str) -> Recipe:
    """The recipe `raw` with sections replaced by shorthands, which are also set in `raw`.

    Raises:
        RecipeError: Names every flag that cannot be used.
    """
    for section, word in short.items():
        replace_at(raw, values, section, word)
    names = {tuple(f"recipe.{section}".split(".")): f"--{section}" for section in short}
    return parse_named(Recipe, raw, lambda path: spell(["recipe", *path], names, usage), usage)


def _show_options(raw: dict[str, Any], file: str, section: str, usage: str) -> None:
    """Print the help of a recipe or a section and exit; this also works for a recipe with mistakes."""
    mistakes, values = "", raw
    try:
        values = parse(Recipe, raw, file).model_dump(mode="json")
    except RecipeError as error:
        mistakes = f"\n{error}\n"
    print(page(Recipe, values, section, usage) + mistakes, end="")
    sys.exit(0)
