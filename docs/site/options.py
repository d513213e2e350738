"""Pages of the reference that list every option of a recipe, made from the config classes.

Each class is described once. Where a class occurs again, as `distill` does under every student, the page links to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel

from prunus.mistakes import classes_in
from prunus.pipeline.recipe import Recipe

FOLDER = "reference/options"
_TYPES = {"integer": "whole number", "number": "number", "string": "text"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_MOST = 2**31  # limits above it only say what a type holds, and are not shown


@dataclass(frozen=True)
class Section:
    """A class of options where it is described.

    Attributes:
        page: The key of the recipe that it stands under.
        name: Its dotted name, such as `students.NAME.prune`.
        cls: The class.
    """

    page: str
    name: str
    cls: type[BaseModel]

    @property
    def anchor(self) -> str:
        """Its heading's anchor."""
        return self.name.replace(".", "-").lower()


def sections() -> list[Section]:
    """Every class of options that a recipe has, once, in the order of the pages.

    A class that a top-level key holds is described on the page of that key, any other where it occurs first.
    """
    keys = sorted(Recipe.model_fields.items(), key=lambda key: key[0] == "search")  # whose `prune` is the students'
    homes = {cls: name for name, info in keys for cls in _direct(info.annotation)}
    found: dict[type[BaseModel], Section] = {}
    for name, info in keys:
        for cls in _direct(info.annotation):
            for section in _below(name, _path(name, info.annotation), cls, homes):
                found.setdefault(section.cls, section)
    return list(found.values())


def pages() -> dict[str, str]:
    """The pages by their paths in the site."""
    known = {section.cls: section for section in sections()}
    written = {f"{FOLDER}/index.md": _index(known)}
    for page in dict.fromkeys(section.page for section in known.values()):
        parts = [_section(section, known) for section in known.values() if section.page == page]
        written[f"{FOLDER}/{page}.md"] = f"# Options of `{page}`\n\n" + "\n".join(parts)
    return written


def _direct(annotation: Any) -> list[type[BaseModel]]:
    return list(dict.fromkeys(classes_in(annotation)))


def _path(name: str, annotation: Any) -> str:
    """The dotted name of what a field holds: of an entry, where it holds several."""
    return f"{name}.NAME" if "dict" in str(get_origin(annotation)) else name


def _below(page: str, name: str, cls: type[BaseModel], homes: Mapping[type, str]) -> Iterator[Section]:
    """A class, and those in it that have no other home."""
    if homes.get(cls, page) != page:
        return
    yield Section(page, name, cls)
    for field, info in cls.model_fields.items():
        for inner in _direct(info.annotation):
            if inner is not cls:
                yield from _below(page, _path(f"{name}.{field}", info.annotation), inner, homes)


def _index(known: Mapping[type[BaseModel], Section]) -> str:
    lines = [
        "# Options",
        "",
        "Every option of a recipe, made from the classes that read it. Each option is also a flag: "
        "`distill.learning_rate` is `--distill.learning-rate` of `prunus run RECIPE`.",
        "",
        *terms("", Recipe, known, f"{FOLDER}/index.md"),
    ]
    return "\n".join(lines)


def _section(section: Section, known: Mapping[type[BaseModel], Section]) -> str:
    help_ = _first_paragraph(section.cls)
    lines = [f"## `{section.name}` {{ #{section.anchor} }}", "", *([help_, ""] if help_ else [])]
    return "\n".join([*lines, *terms(section.anchor, section.cls, known, f"{FOLDER}/{section.page}.md")])


def _first_paragraph(cls: type[BaseModel]) -> str:
    return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())


def terms(anchor: str, cls: type[BaseModel], known: Mapping[type[BaseModel], Section], page: str) -> list[str]:
    """The options of a class, each a term and its help."""
    schema = cls.model_json_schema()["properties"]
    by_name = {inner.__name__: section for inner, section in known.items()}
    headings = {section.anchor for section in known.values()}
    lines = []
    for name, info in cls.model_fields.items():
        place = f"{anchor}-{name}" if anchor else name
        mark = "" if place in headings else f"{{ #{place} }}"
        default = "required" if info.is_required() else _default(info.get_default(call_default_factory=True))
        facts = " · ".join(fact for fact in (kind(schema[name], by_name, page), default) if fact)
        lines += [f"`{name}`{mark} <small>{facts}</small>", f":   {' '.join((info.description or '').split())}", ""]
    return lines


def kind(schema: Mapping[str, Any], known: Mapping[str, Section], page: str, several: bool = False) -> str:
    """What a field takes, in words.

    Args:
        schema: Its JSON schema.
        known: Where the classes that it may refer to are described, by their names.
        page: The page that the words are for; links are relative to it.
        several: Whether there are several of it.
    """
    if "$ref" in schema:
        section = known[schema["$ref"].rpartition("/")[2]]
        file = "" if page == f"{FOLDER}/{section.page}.md" else f"{section.page}.md"
        return f"options of [{section.name}]({file}#{section.anchor})"
    if "anyOf" in schema:
        return " or ".join(kind(one, known, page, several) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    inner = schema.get("items") or schema.get("additionalProperties") or {"anyOf": schema.get("prefixItems", [])}
    match schema["type"]:
        case "boolean":
            words = "`true`, `false`"
        case "array":
            words = f"list of {kind(inner, known, page, several=True)}"
        case "object":
            words = f"mapping of names to {kind(inner, known, page, several=True)}"
        case plain:
            shown = {sign: schema[key] for key, sign in _LIMITS.items() if abs(schema.get(key, _MOST)) < _MOST}
            limits = (f"{sign} {int(limit) if limit == int(limit) else limit:_}" for sign, limit in shown.items())
            words = f"{_TYPES[plain]}{'s' if several else ''} {', '.join(limits)}".strip()
    return words


def _default(value: Any) -> str:
    """A default as a recipe has it; nothing for what is unset, or has a section of its own."""
    if value is None or isinstance(value, BaseModel) or value in ({}, (), ""):
        return ""
    return f"default `{json.dumps(value, ensure_ascii=False)}`"
