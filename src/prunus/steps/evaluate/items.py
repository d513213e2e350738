"""Items of the skills: their prompts and checks; docs/evaluate.md describes the format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.data.values import read_rows
from prunus.errors import DataError, among
from prunus.steps.evaluate import forms
from prunus.steps.evaluate.config import TaskConfig
from prunus.verify.skills import SKILLS
from prunus.world.config import SKILLS as SKILLS_OF_WORLD
from prunus.world.config import WORLD, WorldConfig
from prunus.world.make import held_out


@dataclass(frozen=True)
class Item:
    """One question of a task.

    Attributes:
        id: Its id, by which answers of several models are paired.
        messages: All messages before the first answer, as `{role, content}`.
        check: What answers are verified by.
        tools: Functions that may be called, as `{name, description, parameters}`.
        then: The user's messages after each answer except the last.
        group: The part of the task that it belongs to, which gets scores of its own.
    """

    id: str
    messages: list[dict[str, Any]]
    check: dict[str, Any]
    tools: list[dict[str, Any]]
    then: list[str]
    group: str | None


def read_items(task: TaskConfig, skill: str, where: str) -> list[Item]:
    """The items of a skill, from files in Prunus's format or in a benchmark's.

    Args:
        task: Options with their location, and how many of each file and group to read.
        skill: Name of the skill.
        where: The name of the option, for messages.

    Raises:
        DataError: There is no such file, or a row is not an item.
    """
    data, gold, limit = str(task.data), task.gold, task.limit
    if data == WORLD:
        return _of_world(task, skill, where)
    items: list[Item] = []
    for file in files_of(data, where):
        rows = read_rows(file, f"{where}.data")
        answers = _gold(file, gold, where)
        plain = forms.to_items(rows, file, answers, f"{where}.data")
        made = (_item(row, i, skill, f"{where}.data: {file.name}, item {i}") for i, row in enumerate(plain, start=1))
        items += _first(made, limit)
    names = [item.id for item in items]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{where}.data: {data}: two items have the id {twice!r}; ids must be unique")
    if not items:
        raise DataError(f"{where}.data: {data} has no items")
    return items


def _of_world(task: TaskConfig, skill: str, where: str) -> list[Item]:
    """The held-out items of a skill in the generated world.

    Raises:
        DataError: The world has no items of that skill.
    """
    if skill not in SKILLS_OF_WORLD:
        has = ", ".join(SKILLS_OF_WORLD)
        raise DataError(f"{where}.data: {WORLD} has no {skill}; allowed: {has}, or a file of items")
    world = task.world or WorldConfig()
    items = held_out(world, skill, min(task.limit or world.held_out_items, world.held_out_items))
    rows = ({"messages": one.messages, "tools": one.tools, "check": one.check} for one in items)
    return [_item(row, number, skill, f"{where}.data: {WORLD}") for number, row in enumerate(rows, start=1)]


def files_of(path: str, where: str) -> list[Path]:
    """A file, or the .json and .jsonl files of a folder.

    Raises:
        DataError: There is none.
    """
    place = Path(path).expanduser()
    found = [place] if place.is_file() else sorted(f for f in place.glob("*.json*") if f.is_file())
    if not found:
        raise DataError(f"{where}.data: {place}: expected a file, or a folder of .json or .jsonl files")
    return found


def _gold(file: Path, gold: str | None, where: str) -> dict[str, Any]:
    """Rows of a file of answers, by id; by default BFCL's, in `possible_answer` next to the questions."""
    beside = file.parent / "possible_answer" / file.name
    place = Path(gold).expanduser() if gold is not None else beside
    place = place / file.name if place.is_dir() else place
    if not place.is_file():
        if gold is not None and not (Path(gold).expanduser()).is_dir():
            raise DataError(f"{where}.gold: {place}: file not found")
        return {}
    return {str(row.get("id", row.get("question_id"))): row for row in read_rows(place, f"{where}.gold")}


def _first(items: Iterable[Item], limit: int | None) -> Iterable[Item]:
    """The first `limit` items of each group."""
    taken: dict[str | None, int] = {}
    for item in items:
        taken[item.group] = taken.get(item.group, 0) + 1
        if limit is None or taken[item.group] <= limit:
            yield item


def _item(row: dict[str, Any], number: int, skill: str, where: str) -> Item:
    known = ("id", "messages", "check", "tools", "then", "group", "reference", "skill")
    for key in row:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}{among(key, known)}")
    messages, check = row.get("messages"), row.get("check")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise DataError(f"{where}: messages: expected a list of {{role, content}} that ends before the answer")
    keys = (*SKILLS[skill].keys, *(("judge",) if SKILLS[skill].judged else ()))
    if not isinstance(check, dict) or not any(key in check for key in keys):
        raise DataError(f"{where}: check: for {skill}, expected one of {', '.join(keys)}")
    name = str(row.get("id", number))
    return Item(name, messages, check, row.get("tools") or [], row.get("then") or [], row.get("group"))
