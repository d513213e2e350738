"""Retrieval-augmented generation: passages, a question, and the answer with its passage, or that it is in none."""

from __future__ import annotations

from random import Random

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, said
from prunus.world.words import Words

RELATIONS = (
    "river", "mayor", "baker", "inn", "bridge", "market", "smith", "tower",
    "well", "gate", "school", "ship", "garden", "song", "king", "mill",
)  # fmt: skip
ABSENT = "The {relation} of {town} is not stated."
_PASSAGES = {"easy": (2, 4), "medium": (2, 4), "hard": (3, 4)}
_FACTS = {"easy": (1, 1), "medium": (1, 2), "hard": (2, 3)}
_STATED = ("The {relation} of {town} is {value}.", "{value} is the {relation} of {town}.")
_ASKED = ("What is the {relation} of {town}?", "Tell me the {relation} of {town}.")
_UNANSWERABLE = 0.2


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """Passages, and so many questions about them."""
    words = Words(random, part)
    count = random.randint(*_PASSAGES[difficulty])
    towns = [words.name() for _ in range(count)]
    facts: list[tuple[int, str, str, str]] = []
    known = random.sample(RELATIONS, 4)  # few relations, so that the same one is told of several towns
    for number, town in enumerate(towns, start=1):
        for relation in random.sample(known, random.randint(*_FACTS[difficulty])):
            facts.append((number, relation, town, words.name()))
    stated = _STATED[: 2 if difficulty == "hard" else 1]
    passages = [
        f"[{number}] "
        + " ".join(
            random.choice(stated).format(relation=relation, town=town, value=value)
            for at, relation, town, value in facts
            if at == number
        )
        for number in range(1, count + 1)
    ]
    asked = [_turn(random, words, facts, known, difficulty) for _ in range(turns)]
    return Scene(asked, "\n".join(passages))


def _turn(
    random: Random, words: Words, facts: list[tuple[int, str, str, str]], known: list[str], difficulty: Difficulty
) -> Turn:
    question = random.choice(_ASKED[: 1 if difficulty == "easy" else 2])
    if random.random() < _UNANSWERABLE:
        told = {(relation, town) for _, relation, town, _ in facts}
        town = words.name() if difficulty == "easy" else random.choice([words.name(), random.choice(facts)[2]])
        relation = random.choice([name for name in known if (name, town) not in told])
        absent = ABSENT.format(relation=relation, town=town)
        return Turn(question.format(relation=relation, town=town), said(absent), {"answers": []})
    number, relation, town, value = random.choice(facts)
    answer = f"The {relation} of {town} is {value} [{number}]"
    return Turn(question.format(relation=relation, town=town), said(answer), {"answers": [answer]})
