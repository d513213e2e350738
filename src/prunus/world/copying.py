"""Pure copying: a row of words to repeat. Not a skill of its own, but a basis of the others."""

from __future__ import annotations

from random import Random

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, reply
from prunus.world.words import Words

_LENGTH = {"easy": (3, 8), "medium": (3, 10), "hard": (6, 12)}


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of `turns` rows."""
    words = Words(random, part)
    return Scene([_turn(random, words, random.randint(*_LENGTH[difficulty])) for _ in range(turns)])


def _turn(random: Random, words: Words, count: int) -> Turn:
    row = " ".join(random.choice([words.name, words.thing, words.number])() for _ in range(count))
    return Turn(f"Say {row}.", reply(row), {"answers": [row]})
