"""Documents, conversations and held-out items of the world; each depends only on its number and the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as numbers
from random import Random
from typing import Any

from prunus.world import calls, copying, instructions, rag, roleplay, stories
from prunus.world.config import KINDS, Difficulty, Part, WorldConfig
from prunus.world.items import Message, Scene
from prunus.world.stories import chant, story

SCENES: dict[str, Callable[[Random, Part, Difficulty, int], Scene]] = {
    "instruction_following": instructions.scene,
    "roleplay": roleplay.scene,
    "rag": rag.scene,
    "function_calling": calls.scene,
    "copying": copying.scene,
    "stories": stories.scene,
}
DOCUMENTS: dict[str, Callable[[Random, Part], str]] = {"stories": story, "chants": chant}


@dataclass(frozen=True)
class Item:
    """A held-out question.

    Attributes:
        skill: The skill that it tests.
        messages: The messages before the answer.
        tools: JSON schemas of the available tools.
        reference: A correct answer, as a message.
        check: The check of an answer; see `Turn`.
    """

    skill: str
    messages: list[Message]
    tools: list[dict[str, Any]]
    reference: Message
    check: dict[str, Any]


def corpus(config: WorldConfig, kind: str, part: Part = "train") -> Iterator[str]:
    """An infinite sequence of documents of one kind."""
    return (DOCUMENTS[kind](_random(config, part, kind, number), part) for number in numbers())


def conversations(config: WorldConfig) -> Iterator[dict[str, Any]]:
    """Training conversations, infinitely many: `{messages, tools, skill, check}`; `check` is for the last answer."""
    number = 0
    while True:
        random = _random(config, "train", "chat", number)
        skill = random.choices(KINDS, [config.mixture.get(name, 0.0) for name in KINDS])[0]
        scene = SCENES[skill](random, "train", config.difficulty, random.randint(1, config.turns))
        messages = _opening(scene)
        for turn in scene.turns:
            messages += [{"role": "user", "content": turn.question}, turn.answer]
        yield {"messages": messages, "tools": scene.tools, "skill": skill, "check": scene.turns[-1].check}
        number += 1


def held_out(config: WorldConfig, skill: str, count: int) -> list[Item]:
    """Items of one skill, whose names, values, tools and combinations occur in no training conversation."""
    items = []
    for number in range(count):
        scene = SCENES[skill](_random(config, "held_out", skill, number), "held_out", config.difficulty, 1)
        turn = scene.turns[0]
        messages = [*_opening(scene), {"role": "user", "content": turn.question}]
        items.append(Item(skill, messages, scene.tools, turn.answer, turn.check))
    return items


def _opening(scene: Scene) -> list[Message]:
    return [{"role": "system", "content": scene.system}] if scene.system else []


def _random(config: WorldConfig, part: Part, what: str, number: int) -> Random:
    """A separate generator for every document, so that none depends on earlier ones."""
    return Random(f"{config.seed} {part} {what} {number}")
