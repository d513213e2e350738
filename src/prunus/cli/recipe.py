"""From `RECIPE [options]` to a recipe with the flags put in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prunus.cli.commands.run import Run
from prunus.cli.pages import page, words
from prunus.cli.parse import parsed
from prunus.config import parse
from prunus.errors import RecipeError
from prunus.pipeline.override import override, replace_at
from prunus.pipeline.recipe import Recipe, read_recipe


def with_recipe(command: type[Run], name: str, arguments: list[str]) -> Run:
    """Parse `RECIPE [options]`: the flags' defaults are the recipe's values, and what is given goes into its YAML.

    The flags are put into the raw recipe, which is then validated as a whole, so that a flag is inherited (by students,
    from `seed`) exactly as the same line in the file would be.
    """
    usage = f"prunus {name} RECIPE"
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(f"usage: {usage} [OPTIONS]\n\n{command.__doc__}\n")
            print(f"{usage} --help lists the sections of that recipe, and --help SECTION a section's options.")
            sys.exit(0)
        raise RecipeError(f"which recipe? usage: {usage} [OPTIONS]")
    file, *flags = arguments
    raw = read_recipe(Path(file))
    if flags and flags[0] in ("-h", "--help"):
        _show_options(raw, file, " ".join(flags[1:]), f"prunus {name} {file}")
    recipe = parse(Recipe, raw, file)
    where = f"{file} with {' '.join(flags)}" if flags else file
    values = recipe.model_dump(mode="json")
    chosen, flags = words(Recipe, values, flags)
    if chosen:
        for section, word in chosen.items():
            replace_at(raw, values, section, word)
        recipe = parse(Recipe, raw, where)
    given: Run = parsed(command, usage, flags, default=command(recipe=recipe))
    names = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    override(raw, given.recipe.model_dump(mode="json"), names)
    return command(recipe=parse(Recipe, raw, where), out=given.out, dry_run=given.dry_run)


def _show_options(raw: dict[str, Any], file: str, section: str, usage: str) -> None:
    """Show a section of a recipe and end, also of a recipe with mistakes."""
    mistakes, values = "", raw
    try:
        values = parse(Recipe, raw, file).model_dump(mode="json")
    except RecipeError as error:
        mistakes = f"\n{error}\n"
    print(page(Recipe, values, section, usage) + mistakes, end="")
    sys.exit(0)
