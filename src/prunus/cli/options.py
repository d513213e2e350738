"""The options of a command: the flag that sets each, the place of its value, and its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from tyro.conf import Positional

from prunus.cli.base import Flat
from prunus.cli.pages import sections
from prunus.mistakes import classes_in

_POSITIONAL = get_args(Positional[str])[1]


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: The flag, such as `--students.small-one.distill.tokens`; of a positional argument, such as `MODEL`.
        path: The keys on the way to its value, from the fields of the command on.
        annotation: The type of the value.
    """

    name: str
    path: tuple[str, ...]
    annotation: Any

    @property
    def positional(self) -> bool:
        """Whether it has no flag."""
        return not self.name.startswith("--")

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        return any(get_origin(part) in (tuple, list, dict) for part in _parts(self.annotation))

    @property
    def mapping(self) -> bool:
        """Whether it takes pairs of a name and a value."""
        return any(get_origin(part) is dict for part in _parts(self.annotation))

    def value(self, texts: list[str]) -> Any:
        """The value in plain data, as a recipe has it. A text that stands for none is kept, for pydantic to refuse."""
        if self.mapping:
            return dict(zip(texts[::2], map(self._one, texts[1::2]), strict=True))
        if self.several and not (len(texts) == 1 and texts[0] in _choices(self.annotation, inside=False)):
            return [self._one(text) for text in texts]
        return self._one(texts[0])

    def _one(self, text: str) -> Any:
        choices = _choices(self.annotation)
        if text in choices:
            return choices[text]
        parts = list(_parts(self.annotation))
        for kind, read in ((int, whole_number), (float, float)):
            if kind in parts:
                with suppress(ValueError):
                    return read(text)
        return text


def options_of(command: type, values: Mapping[str, Any]) -> dict[str, Option]:
    """The options of a command by name, with hyphens for underscores; positional arguments in order.

    Args:
        command: The command's class.
        values: Its recipe as plain values under the field's name, for the sections that only a recipe names.
    """
    found: dict[str, Option] = {}
    for option in _walk(command, (), "", values):
        found.setdefault(option.name, option)
    return found


def _walk(cls: type, path: tuple[str, ...], prefix: str, values: Mapping[str, Any]) -> Iterator[Option]:
    """The options of a dataclass: those of its configs after the others."""
    hints = get_type_hints(cls, include_extras=True)
    inner = []
    for name in (field.name for field in fields(cls)):
        marks = get_args(hints[name])[1:] if get_origin(hints[name]) is Annotated else ()
        kind = get_args(hints[name])[0] if marks else hints[name]
        if isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel)):
            inner.append((kind, name, "" if any(mark is Flat for mark in marks) else f"{prefix}{name}."))
        elif _POSITIONAL in marks:
            metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name.upper())
            yield Option(metavar, (*path, name), kind)
        else:
            yield Option(_flag(prefix + name), (*path, name), kind)
    for kind, name, below in inner:
        if is_dataclass(kind):
            yield from _walk(kind, (*path, name), below, {})
            continue
        for section, (config, _) in sections(kind, values.get(name, {})).items():
            place = (*path, name, *filter(None, section.split(".")))
            start = below + (f"{section}." if section else "")
            for option, info in config.model_fields.items():
                if not list(classes_in(info.annotation)):  # not a section
                    yield Option(_flag(start + option), (*place, option), info.annotation)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all types inside it."""
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _choices(annotation: Any, inside: bool = True) -> dict[str, Any]:
    """The fixed values of a type by their spelling on the command line, `None` included.

    Args:
        annotation: The type.
        inside: Include those of the elements of lists.
    """
    if annotation is type(None):
        return {"None": None}
    if annotation is bool:
        return {"True": True, "False": False}
    if get_origin(annotation) is Literal:
        return {str(choice): choice for choice in get_args(annotation)}
    if get_origin(annotation) in (tuple, list, dict) and not inside:
        return {}
    return {text: choice for part in get_args(annotation) for text, choice in _choices(part, inside).items()}


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
