"""Pure copying: words in a row, to be said again. No skill of its own, but what the others are learnt from."""

from __future__ import annotations

from random import Random

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, said
from prunus.world.words import Words

_LENGTH = {"easy": (3, 8), "medium": (3, 10), "hard": (6, 12)}


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """So many rows."""
    words = Words(random, part)
    return Scene([_turn(random, words, random.randint(*_LENGTH[difficulty])) for _ in range(turns)])


def _turn(random: Random, words: Words, count: int) -> Turn:
    row = " ".join(random.choice([words.name, words.thing, words.number])() for _ in range(count))
    return Turn(f"Say {row}.", said(row), {"answers": [row]})
