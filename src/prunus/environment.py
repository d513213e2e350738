"""`${NAME}` in a recipe: the variable's value is used, and `${NAME}` is what is written down.

A recipe holds expanded values from the moment it is read, so that everything is checked and planned by what will be
used; each expanded text is remembered here, and whatever writes a record puts the recipe's own words back first.
Options that decide a result are hashed with their values, so another value is another result; addresses and paths
decide no name.
"""

from __future__ import annotations

import os
import re

from prunus.errors import RecipeError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_LONG = 8  # characters of a value that is also replaced inside longer texts; shorter ones are ordinary words
_written: dict[str, str] = {}  # each text that came of an expansion: as the recipe has it
_values: dict[str, str] = {}  # each long value that was used: its variable


def expand(text: str, where: str) -> str:
    """A text with the values of the environment variables that it names.

    Args:
        text: As the recipe has it.
        where: The option, for the message.

    Raises:
        RecipeError: A variable is not set, or its value is not UTF-8.
    """

    def value_of(found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if value is None:
            raise RecipeError(f"{where}: the environment variable {found[1]} is not set; {text!r} needs it")
        if not value.isprintable():
            raise RecipeError(f"{where}: the environment variable {found[1]} holds characters that cannot be printed")
        if len(value) >= _LONG:
            _values[value] = found[0]
        return value

    expanded = _VARIABLE.sub(value_of, text)
    if expanded and expanded != text:
        _written[expanded] = text
    return expanded


def as_written(text: str) -> str:
    """A text for a record, with `${NAME}` put back where a variable was expanded: in the whole, or in a part of it."""
    if text in _written:
        return _written[text]
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, _values[value])
    return text


def as_used(text: str) -> str | None:
    """A text out of a record with the values of its variables, or None where one is not set any more."""
    try:
        return expand(text, "")
    except RecipeError:
        return None
