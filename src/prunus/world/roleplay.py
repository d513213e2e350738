"""Roleplay: a card that describes a person and their manner of speaking, and questions that it answers."""

from __future__ import annotations

from random import Random

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, reply
from prunus.world.words import Words

_FIELDS = {
    "Name": (("What is your name?", "Who are you?"), "My name is {value}"),
    "Trade": (("What do you sell?", "What is your trade?"), "I sell {value}"),
    "Home": (("Where do you live?", "Where is your home?"), "I live in {value}"),
    "Likes": (("What do you like?", "What makes you glad?"), "I like {value}"),
    "Friend": (("Who is your friend?", "Whom do you trust?"), "My friend is {value}"),
    "Age": (("How old are you?", "What is your age?"), "I am {value}"),
}
_MANNERS = ("ends with", "begins with")
_LINES = {"easy": (4, 5), "medium": (5, 6), "hard": (6, 6)}


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of a card and `turns` questions to the person."""
    words = Words(random, part)
    names = random.sample(list(_FIELDS), random.randint(*_LINES[difficulty]))
    draw = {"Trade": words.thing, "Likes": words.thing, "Age": words.number}
    card = {name: draw.get(name, words.name)() for name in _FIELDS if name in names}
    manner, word = random.choice(_MANNERS), words.thing()
    lines = [f"{name}: {value}." for name, value in card.items()]
    if difficulty != "easy":
        random.shuffle(lines)
    system = " ".join(["You play this person.", *lines, f"Manner: {manner} {word}."])
    questions = random.sample(names, min(turns, len(names)))
    return Scene([_turn(random, name, card, manner, word, difficulty) for name in questions], system)


def _turn(random: Random, name: str, card: dict[str, str], manner: str, word: str, difficulty: Difficulty) -> Turn:
    questions, answer = _FIELDS[name]
    text = answer.format(value=card[name])
    text = f"{text}, {word}." if manner == "ends with" else f"{word}, {text}."
    others = [value for other, value in card.items() if other != name]
    check = {"facts": [[card[name]]], "contradictions": others, "manner": [manner, word]}
    return Turn(random.choice(questions[: 1 if difficulty == "easy" else 2]), reply(text), check)
