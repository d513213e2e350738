"""Retrieval-augmented generation: passages, a question, and an answer that cites its passage or says it is absent."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, reply
from prunus.world.words import Words

RELATIONS = (
    "river", "mayor", "baker", "inn", "bridge", "market", "smith", "tower",
    "well", "gate", "school", "ship", "garden", "song", "king", "mill",
)  # fmt: skip
ABSENT = "The {relation} of {town} is not stated."
_PASSAGES = {"easy": (2, 4), "medium": (2, 4), "hard": (3, 4)}
_FACTS = {"easy": (1, 1), "medium": (1, 2), "hard": (2, 3)}
_VERBS = ("was", "became", "remains", "stays")
_STATED = ("The {relation} of {town} {verb} {value}[{number}].", "{value}[{number}] {verb} the {relation} of {town}.")
_ASKED = ("What is the {relation} of {town}?", "Tell me the {relation} of {town}.")
_UNANSWERABLE = 0.2


class Fact(NamedTuple):
    """A fact stated in a passage."""

    number: int
    relation: str
    town: str
    verb: str
    value: str


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of passages and `turns` questions about them."""
    words = Words(random, part)
    count = random.randint(*_PASSAGES[difficulty])
    towns = [words.name() for _ in range(count)]
    verbs = random.sample(_VERBS, count)  # one per passage, so that the verb identifies the passage
    facts: list[Fact] = []
    known = random.sample(RELATIONS, 4)  # few relations, so that several towns have the same one
    for number, town in enumerate(towns, start=1):
        for relation in random.sample(known, random.randint(*_FACTS[difficulty])):
            facts.append(Fact(number, relation, town, verbs[number - 1], words.name()))
    stated = _STATED[: 2 if difficulty == "hard" else 1]
    passages = [
        " ".join(random.choice(stated).format(**fact._asdict()) for fact in facts if fact.number == number)
        for number in range(1, count + 1)
    ]
    questions = [_turn(random, words, facts, known, difficulty) for _ in range(turns)]
    return Scene(questions, "\n".join(passages))


def _turn(random: Random, words: Words, facts: list[Fact], known: list[str], difficulty: Difficulty) -> Turn:
    question = random.choice(_ASKED[: 1 if difficulty == "easy" else 2])
    if random.random() < _UNANSWERABLE:
        stated = {(fact.relation, fact.town) for fact in facts}
        town = words.name() if difficulty == "easy" else random.choice([words.name(), random.choice(facts).town])
        relation = random.choice([name for name in known if (name, town) not in stated])
        absent = ABSENT.format(relation=relation, town=town)
        return Turn(question.format(relation=relation, town=town), reply(absent), {"answers": []})
    fact = random.choice(facts)
    answer = _STATED[0].format(**fact._asdict()).removesuffix(".")
    return Turn(question.format(relation=fact.relation, town=fact.town), reply(answer), {"answers": [answer]})
