"""`${NAME}` in a recipe: the variable's value is used, and `${NAME}` is recorded.

Variables are expanded when a recipe is read, so that checks and plans see the values that will be used. This module
remembers each expanded text, and code that writes a record puts `${NAME}` back first. Fingerprints are computed over
the values, so another value is another result; addresses and paths are not part of a fingerprint.
"""

from __future__ import annotations

import os
import re

from prunus.errors import RecipeError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_LONG = 8  # values with this many characters are also replaced inside longer texts; shorter ones may be common words
_written: dict[str, str] = {}  # expanded text -> the text in the recipe
_values: dict[str, str] = {}  # long value -> its variable, as `${NAME}`


def expand(text: str, where: str) -> str:
    """Expand the environment variables in a text.

    Args:
        text: The text in the recipe.
        where: The option, for the message.

    Raises:
        RecipeError: A variable is not set, or its value is not printable.
    """

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise RecipeError(f"{where}: the environment variable {match[1]} is not set; {text!r} needs it")
        if not value.isprintable():
            raise RecipeError(f"{where}: the environment variable {match[1]} holds characters that cannot be printed")
        if len(value) >= _LONG:
            _values[value] = match[0]
        return value

    expanded = _VARIABLE.sub(value_of, text)
    if expanded and expanded != text:
        _written[expanded] = text
    return expanded


def as_written(text: str) -> str:
    """Undo `expand` for a record: put `${NAME}` back in the whole text or in a part of it."""
    if text in _written:
        return _written[text]
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, _values[value])
    return text


def as_used(text: str) -> str | None:
    """Expand the variables of a recorded text; None if one is no longer set."""
    try:
        return expand(text, "")
    except RecipeError:
        return None
