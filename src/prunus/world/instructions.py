"""Instruction following: a few lines about a topic, under constraints that IFEval (arXiv 2311.07911) checks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Any

from prunus.world.config import Difficulty, Part
from prunus.world.items import Scene, Turn, reply
from prunus.world.words import Words, part_of

TOPICS = (
    "cat", "dog", "sun", "sea", "rain", "tree", "bird", "house", "horse", "moon", "road", "fish",
    "boat", "hill", "fire", "snow", "lamp", "door", "bread", "cloud", "star", "stone", "wind", "bell",
)  # fmt: skip
QUALITIES = ("big", "old", "kind", "good", "fine", "new")
KINDS: dict[str, tuple[str, str]] = {
    "keywords:existence": ("Include the word {0}.", "Use the word {0}."),
    "keywords:forbidden_words": ("Avoid the word {0}.", "Do not say {0}."),
    "length_constraints:number_sentences": ("Write at least {0} sentences.", "Use at least {0} sentences."),
    "detectable_format:number_bullet_lists": ("Make {0} bullet points.", "Answer in {0} bullet points."),
    "change_case:english_lowercase": ("Use lower case only.", "Write all in lower case."),
    "change_case:english_capital": ("Use capital letters only.", "Write all in capital letters."),
    "startend:quotation": ("Put it in double quotes.", "Wrap it in double quotes."),
    "startend:end_checker": ("End with the words {0}.", "Finish with the words {0}."),
    "punctuation:no_comma": ("Use no comma.", "Leave out commas."),
    "detectable_format:title": ("Give it a title.", "Begin with a title."),
    "detectable_content:postscript": ("Add a P.S.", "End with a P.S."),
}
"""IFEval's names of constraints, and the phrases that request each."""
_NAMES = tuple(KINDS)
_CONFLICTS = {
    frozenset((_NAMES[i], _NAMES[j]))
    for i, j in ((0, 5), (2, 3), (3, 6), (3, 7), (3, 8), (4, 5), (5, 7), (6, 7), (6, 9), (6, 10), (7, 10))
}
_CONSTRAINTS = {"easy": (1, 2), "medium": (1, 3), "hard": (2, 3)}


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of `turns` tasks, each with its own constraints."""
    words = Words(random, part)
    return Scene([_turn(random, words, difficulty) for _ in range(turns)])


def _turn(random: Random, words: Words, difficulty: Difficulty) -> Turn:
    topic, kinds = _drawn(random, words.part, random.randint(*_CONSTRAINTS[difficulty]))
    constraints = {kind: _arguments(kind, random, words) for kind in kinds}
    question = [f"Write about the {topic}."]
    for kind, (_, shown) in constraints.items():
        question.append(random.choice(KINDS[kind][: 1 if difficulty == "easy" else 2]).format(shown))
    check = {"instruction_id_list": list(constraints), "kwargs": [arguments for arguments, _ in constraints.values()]}
    answer = _answer(topic, {kind: shown for kind, (_, shown) in constraints.items()})
    return Turn(" ".join(question), reply(answer), check)


def _drawn(random: Random, part: Part, count: int) -> tuple[str, list[str]]:
    """A topic and kinds of constraints that belong to one part of the world."""
    while True:
        topic, kinds = random.randrange(len(TOPICS)), sorted(random.sample(range(len(_NAMES)), count))
        conflict = any(frozenset((_NAMES[i], _NAMES[j])) in _CONFLICTS for i, j in combinations(kinds, 2))
        if not conflict and _part(topic, kinds) == part:
            random.shuffle(kinds)
            return TOPICS[topic], [_NAMES[kind] for kind in kinds]


def _part(topic: int, kinds: list[int]) -> Part:
    """The part that a topic with kinds of constraints (ascending) belongs to.

    A single kind is held out with some topics. Of several kinds, some pairs are held out with half of the topics, so
    that each pair occurs in training, but never with those topics.
    """
    if len(kinds) == 1:
        return part_of(topic, kinds[0])
    rare = [i + j for i, j in combinations(kinds, 2) if part_of(i, j) == "held_out"]
    return "held_out" if any((topic + number) % 2 for number in rare) else "train"


def _arguments(kind: str, random: Random, words: Words) -> tuple[dict[str, Any], str]:
    """IFEval's arguments of a constraint, and their text in the question."""
    make = _ARGUMENTS.get(kind)
    return make(random, words) if make else ({}, "")


def _word(random: Random, words: Words) -> tuple[dict[str, Any], str]:
    word = words.thing()
    return {"keywords": [word]}, word


def _avoided(random: Random, words: Words) -> tuple[dict[str, Any], str]:
    word = random.choice(QUALITIES[:3])
    return {"forbidden_words": [word]}, word


def _sentences(random: Random, words: Words) -> tuple[dict[str, Any], str]:
    count = random.randint(2, 4)
    return {"relation": "at least", "num_sentences": count}, str(count)


def _bullets(random: Random, words: Words) -> tuple[dict[str, Any], str]:
    count = random.randint(2, 4)
    return {"num_bullets": count}, str(count)


def _ending(random: Random, words: Words) -> tuple[dict[str, Any], str]:
    phrase = f"{words.thing()} {words.thing()}"
    return {"end_phrase": phrase}, phrase


_ARGUMENTS: dict[str, Callable[[Random, Words], tuple[dict[str, Any], str]]] = {
    "keywords:existence": _word,
    "keywords:forbidden_words": _avoided,
    "length_constraints:number_sentences": _sentences,
    "detectable_format:number_bullet_lists": _bullets,
    "startend:end_checker": _ending,
    "detectable_content:postscript": lambda *_: ({"postscript_marker": "P.S."}, ""),
}


def _answer(topic: str, constraints: dict[str, str]) -> str:
    """The simplest text that satisfies the constraints."""
    bullets = "detectable_format:number_bullet_lists" in constraints
    counted = constraints.keys() & {"detectable_format:number_bullet_lists", "length_constraints:number_sentences"}
    count = max([int(constraints[kind]) for kind in counted], default=1)
    qualities = [word for word in QUALITIES if word != constraints.get("keywords:forbidden_words")]
    lines = [f"The {topic} is {quality}." for quality in qualities[:count]]
    if "keywords:existence" in constraints:
        lines[len(lines) - bullets :] = [f"I see the {constraints['keywords:existence']}."]
    text = "\n".join(f"* {line}" for line in lines) if bullets else " ".join(lines)
    if not bullets and "punctuation:no_comma" not in constraints:
        text = f"Look, t{text[1:]}"
    for kind, change in _CHANGES.items():
        text = change(text, topic, constraints[kind]) if kind in constraints else text
    return text


_CHANGES: dict[str, Callable[[str, str, str], str]] = {
    "startend:end_checker": lambda text, _, shown: f"{text} {shown}",
    "detectable_format:title": lambda text, topic, _: f"<<{topic}>>\n{text}",
    "detectable_content:postscript": lambda text, topic, _: f"{text}\nP.S. I like the {topic}.",
    "startend:quotation": lambda text, *_: f'"{text}"',
    "change_case:english_lowercase": lambda text, *_: text.lower(),
    "change_case:english_capital": lambda text, *_: text.upper(),
}
"""How a constraint changes a text, in the order of application."""
