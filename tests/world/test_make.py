"""The world is the same from the same seed, and what is held out is nowhere in training."""

import json
import re
from itertools import islice
from typing import Any

import pytest

from prunus.world.config import DIFFICULTIES, SKILLS, Difficulty, WorldConfig
from prunus.world.instructions import KINDS
from prunus.world.make import DOCUMENTS, conversations, corpus, held_out
from prunus.world.rows import rendered
from prunus.world.words import FIRST, SECOND, part_of

WORD = re.compile(rf"(?<![a-z])({'|'.join(FIRST)})({'|'.join(SECOND)})(?![a-z])", re.IGNORECASE)
NUMBER = re.compile(r"(?<!\d)(\d)(\d)(?!\d)")


def parts_in(text: str) -> set[str]:
    """The parts that the names, things and numbers of a text belong to, found by reading it."""
    words = {part_of(_at(FIRST, first), _at(SECOND, second)) for first, second in WORD.findall(text)}
    return words | {part_of(int(tens) - 1, int(ones)) for tens, ones in NUMBER.findall(text)}


def _at(syllables: tuple[str, ...], syllable: str) -> int:
    return syllables.index(syllable.lower())


def only(skill: str, difficulty: Difficulty = "medium", **options: Any) -> WorldConfig:
    return WorldConfig(difficulty=difficulty, mixture={skill: 1.0}, **options)


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_seed_is_a_world(skill: str, difficulty: Difficulty) -> None:
    config = only(skill, difficulty, seed=7)
    assert list(islice(conversations(config), 20)) == list(islice(conversations(config), 20))
    assert held_out(config, skill, 20) == held_out(config, skill, 20)
    assert held_out(config, skill, 20)[:5] == held_out(
        config, skill, 5
    )  # an item does not depend on how many there are
    other = only(skill, difficulty, seed=8)
    assert list(islice(conversations(config), 20)) != list(islice(conversations(other), 20))


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_word_of_one_part_occurs_in_the_other(skill: str, difficulty: Difficulty) -> None:
    config = only(skill, difficulty)
    trained = json.dumps(list(islice(conversations(config), 200)))
    asked = json.dumps([[item.messages, item.tools, item.reference] for item in held_out(config, skill, 200)])
    assert parts_in(trained) == {"train"}
    assert parts_in(asked) == {"held_out"}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_nor_in_the_documents(kind: str) -> None:
    config = WorldConfig()
    assert parts_in(" ".join(islice(corpus(config, kind, "train"), 200))) == {"train"}
    assert parts_in(" ".join(islice(corpus(config, kind, "held_out"), 200))) == {"held_out"}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_instructions_are_combined_as_training_never_combines_them(difficulty: Difficulty) -> None:
    config = only("instruction_following", difficulty)
    trained = set()
    for row in islice(conversations(config), 2000):
        trained |= {turn["content"] for turn in row["messages"] if turn["role"] == "user"}
    items = held_out(config, "instruction_following", 300)
    assert not trained & {item.messages[-1]["content"] for item in items}
    shown = {_asked(text) for text in trained}
    assert not shown & {_asked(item.messages[-1]["content"]) for item in items}


def _asked(question: str) -> tuple[str, frozenset[str]]:
    """What a question is about, and the kinds of constraint in it, whatever their words."""
    topic, rest = question.removeprefix("Write about the ").split(". ", 1)
    kinds = [kind for kind, forms in KINDS.items() if any(form.split("{0}")[0].strip() in rest for form in forms)]
    return topic, frozenset(kinds)


def test_the_mixture_is_the_one_that_is_set() -> None:
    mixture = {"rag": 3.0, "function_calling": 1.0}
    rows = list(islice(conversations(WorldConfig(mixture=mixture)), 400))
    calls = sum(bool(row["tools"]) for row in rows)
    assert 70 <= calls <= 130
    assert all(row["tools"] or row["messages"][0]["role"] == "system" for row in rows)


@pytest.mark.parametrize("skill", SKILLS)
def test_what_is_harder_is_longer(skill: str) -> None:
    sizes = [len(json.dumps([i.messages for i in held_out(only(skill, level), skill, 200)])) for level in DIFFICULTIES]
    if skill == "function_calling":
        sizes = [len(json.dumps([i.tools for i in held_out(only(skill, level), skill, 200)])) for level in DIFFICULTIES]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_what_a_request_gives_does_not_tell_which_tool_it_is_for(difficulty: Difficulty) -> None:
    for item in held_out(only("function_calling", difficulty), "function_calling", 100):
        parameters = [tool["function"]["parameters"]["properties"] for tool in item.tools]
        assert len({tuple(one["type"] for one in properties.values()) for properties in parameters}) == 1
        assert len({tuple(properties) for properties in parameters}) > 1
        assert len({tool["function"]["name"].split("_")[0] for tool in item.tools}) <= 2
        assert not any(f" {name} " in item.messages[-1]["content"] for properties in parameters for name in properties)
        quoted = item.reference["content"].split("\n")
        assert len(quoted) == max(1, len(item.check["calls"]))
        shown = rendered(item.messages, item.tools)
        assert all((line in shown) == bool(item.check["calls"]) for line in quoted)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_what_is_not_stated_is_in_no_passage(difficulty: Difficulty) -> None:
    known_towns = 0
    for item in held_out(only("rag", difficulty), "rag", 200):
        told = re.findall(r"[Tt]he (\w+) of (\w+)", item.messages[0]["content"])
        asked = re.findall(r"the (\w+) of (\w+)", item.messages[-1]["content"])[0]
        assert (asked in told) == bool(item.check["answers"])
        by_passage = [re.findall(r"was|became|remains|stays", line) for line in item.messages[0]["content"].split("\n")]
        assert all(len(set(verbs)) == 1 for verbs in by_passage)
        assert len({verbs[0] for verbs in by_passage}) == len(by_passage)  # each passage has its own
        known_towns += asked not in told and asked[1] in {town for _, town in told}
    assert bool(known_towns) == (difficulty != "easy")  # there a town is told one thing of


def test_a_chant_repeats_few_words() -> None:
    for text in islice(corpus(WorldConfig(), "chants"), 50):
        words = text.removesuffix(".").split()[1:]
        count = len(words) - 16
        assert 2 <= count <= 4
        assert len(set(words[:count])) == count
        assert set(words[count:]) <= set(words[:count])
