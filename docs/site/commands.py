"""The page of the reference that lists every command, and the Python function of the same name."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from docs.site.options import FOLDER, Section, sections, terms
from tyro.conf import Suppress

import prunus
from prunus.cli.main import COMMANDS

PAGE = "reference/commands.md"
_HEAD = """# Commands and Python functions

Every command, with the arguments that it takes in addition to the options of its step. `prunus COMMAND --help` shows
both.

A command with a Python example is also a function of `prunus`. Flags are keyword arguments with underscores, nested
options are mappings (`heal={"refit": "none"}`), and the function returns the folder of the result. It raises
`prunus.PrunusError` if the input cannot be used or the step fails. `console=prunus.Console(quiet=True)` prints nothing.
"""


@dataclass(frozen=True)
class Argument:
    """An argument of a command.

    Attributes:
        name: Its name in Python.
        metavar: What stands for it on the command line, if it has no flag.
        required: Whether it has no default.
        help: What it is.
    """

    name: str
    metavar: str | None
    required: bool
    help: str

    @property
    def flag(self) -> str:
        """How the command line has it."""
        return self.metavar or _flag(self.name)


def page() -> str:
    """The page."""
    known = {section.cls: section for section in sections()}
    return "\n".join([_HEAD, *(_command(name, known) for name in COMMANDS)])


def arguments(cls: type) -> Iterator[Argument]:
    """The arguments of a command's class but the options of its step, those that it inherits included."""
    hints, marked, helps = get_type_hints(cls), get_type_hints(cls, include_extras=True), _helps(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from arguments(hints[field.name])
            continue
        extras = getattr(marked[field.name], "__metadata__", ())
        if field.name in helps and Suppress not in extras:
            metavar = next((name for extra in extras if (name := getattr(extra, "metavar", None))), None)
            required = field.default is MISSING and field.default_factory is MISSING
            yield Argument(field.name, metavar, required, helps[field.name])


def _helps(cls: type) -> dict[str, str]:
    """The docstrings under a class's fields."""
    found = {}
    for owner in reversed([one for one in cls.__mro__ if is_dataclass(one)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _command(name: str, known: dict[Any, Section]) -> str:
    cls = getattr(importlib.import_module(f"prunus.cli.commands.{name}"), name.capitalize())
    own, hints = list(arguments(cls)), get_type_hints(cls)
    first = [] if "recipe" not in hints else [Argument("recipe", "RECIPE", True, "The recipe, a YAML file.")]
    own = [*first, *sorted(own, key=lambda argument: (argument.metavar is None, not argument.required))]
    lines = [f"## `prunus {name}` {{ #{name} }}", "", inspect.cleandoc(cls.__doc__ or ""), ""]
    lines += ["```sh", _shell(name, own), "```", ""]
    if name in prunus._VERBS:
        lines += ["```python", _python(name, own), "```", ""]
    for argument in own:
        need = " <small>required</small>" if argument.required else ""
        lines += [f"`{argument.flag}`{need}", f":   {argument.help}", ""]
    config = hints.get("config") or hints.get("recipe")
    return "\n".join([*lines, *_rest(name, config, known)])


def _shell(name: str, own: list[Argument]) -> str:
    needed = [argument for argument in own if argument.required]
    words = [one.flag if one.metavar else f"{one.flag} {one.name.upper()}" for one in needed]
    return " ".join(["prunus", name, *words, "[OPTIONS]"])


def _python(name: str, own: list[Argument]) -> str:
    needed = [one.metavar.lower() if one.metavar else f"{one.name}=..." for one in own if one.required]
    return f"prunus.{name}({', '.join([*needed, '**options'])})"


def _rest(name: str, config: Any, known: dict[Any, Section]) -> list[str]:
    """Where the other options are described; the options themselves, if no recipe has them."""
    if config is None:
        return []
    if config is prunus.Recipe:
        return ["All options of a recipe are flags: see [Options](options/index.md).", ""]
    section = next((known[one] for one in (config, *config.__subclasses__()) if one in known), None)
    if section is None:
        return [re.sub(r"^`(\w+)`", _as_flag, line) for line in terms(name, config, known, PAGE)]
    folder = FOLDER.removeprefix("reference/")
    return [f"The options of [{section.name}]({folder}/{section.page}.md#{section.anchor}) are its other flags.", ""]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_flag(option: re.Match[str]) -> str:
    return f"`{_flag(option[1])}`"
