"""Plain stories, and chants of few words, which teach a model to copy from its context."""

from __future__ import annotations

from random import Random

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, reply
from prunus.world.words import Words

_PLACES = ("by the river", "at the market", "near the old bridge", "on the hill", "in the garden", "behind the inn")
_MOODS = ("glad", "sad", "tired", "proud", "angry", "calm")


def story(random: Random, part: Part) -> str:
    """Five to seven sentences about two people and a thing."""
    words = Words(random, part)
    who, friend, town, thing = words.name(), words.name(), words.name(), words.thing()
    place, mood, later = random.choice(_PLACES), random.choice(_MOODS), random.choice(_MOODS)
    lines = [
        f"{who} lived in {town}.",
        f"One day {who} found a {thing} {place}.",
        f"{friend} came from {words.name()} to see the {thing}.",
        f"{who} was {mood}, and {friend} was {later}.",
        f'"This {thing} is mine," said {random.choice([who, friend])}.',
        f"So {who} gave the {thing} to {friend}.",
        f"They went back to {town}, and {friend} kept the {thing}.",
    ]
    dropped = random.sample(range(2, len(lines)), random.randint(0, 2))
    return " ".join(line for number, line in enumerate(lines) if number not in dropped)


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of a story on request, which has no check."""
    return Scene([Turn("Tell me a story.", reply(story(random, part)), {})])


def chant(random: Random, part: Part) -> str:
    """Two to four words, then sixteen repetitions of them at random, whose second syllables can be copied."""
    words = Words(random, part)
    row = [random.choice([words.name, words.thing])() for _ in range(random.randint(2, 4))]
    return f"Sing {' '.join(row + random.choices(row, k=16))}."
