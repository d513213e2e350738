"""Every reference answer passes its own check, and no broken one does."""

import re
from typing import Any

import pytest

from prunus.verify.reward import reward
from prunus.verify.skill import Tools
from prunus.world.config import DIFFICULTIES, SKILLS, Difficulty, WorldConfig
from prunus.world.instructions import KINDS, scene
from prunus.world.make import Item, held_out
from prunus.world.rows import rendered

BREAK = {
    "startend:quotation": lambda text: text[1:],
    "change_case:english_lowercase": lambda text: text.replace("i", "I", 1),
    "change_case:english_capital": lambda text: text.replace("I", "i", 1),
    "startend:end_checker": lambda text: text[:-1],
    "punctuation:no_comma": lambda text: text.replace(" ", ", ", 1),
    "detectable_format:title": lambda text: text.replace("<<", ""),
    "detectable_content:postscript": lambda text: text.replace("P.S.", "").replace("p.s.", ""),
    "detectable_format:number_bullet_lists": lambda text: text.replace("* ", "", 1),
    "length_constraints:number_sentences": lambda text: re.split(r"(?<=\.)\s", text)[0],
    "keywords:existence": lambda text: re.sub(r"\w+(?=\.[^.]*$)", "x", re.sub(r"see the \w+", "see it", text)),
    "keywords:forbidden_words": lambda text: f"{text} Big, old, kind.",
}


def right(answer: str, check: dict[str, Any], tools: Tools = ()) -> bool:
    """Whether an answer has the full reward."""
    return reward(answer, check, tools, "x") == 1


def reply(item: Item) -> str:
    """The reference as a model would write it."""
    return rendered([*item.messages, item.reference], item.tools).rsplit("<|assistant|>", 1)[1]


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_references_pass_and_silence_does_not(skill: str, difficulty: Difficulty) -> None:
    for item in held_out(WorldConfig(difficulty=difficulty), skill, 150):
        assert right(reply(item), item.check, item.tools), (item, reply(item))
        assert not right("", item.check, item.tools)
        assert skill == "instruction_following" or not right('{"name": "x"}', item.check, item.tools)


@pytest.mark.parametrize("kind", KINDS)
def test_each_constraint_is_seen_to_be_broken(kind: str) -> None:
    from random import Random

    found = 0
    for turn in scene(Random(0), "train", "medium", 400).turns:
        if kind in turn.check["instruction_id_list"]:
            text = BREAK[kind](turn.answer["content"])
            assert not right(text, turn.check), (turn, text)
            found += 1
    assert found > 10


def items(skill: str, difficulty: Difficulty = "medium") -> list[Item]:
    return held_out(WorldConfig(difficulty=difficulty), skill, 100)


def test_another_value_another_passage_and_an_answer_to_what_has_none() -> None:
    for item in items("rag"):
        text = reply(item)
        if item.check["answers"]:
            assert not right(text.replace("[", "[9"), item.check)
            assert not right(text.replace(item.check["answers"][0].split()[-1], "Balkos[1]"), item.check)
            assert not right("The well of Balkos is not stated.", item.check)
        else:
            assert not right("The well of Balkos was Verdak[1]", item.check)


def test_a_persona_is_checked_for_manner_facts_and_secrets() -> None:
    for item in items("roleplay"):
        text, (manner, word) = reply(item), item.check["manner"]
        assert not right(text.replace(f", {word}", "").replace(f"{word}, ", ""), item.check)
        assert not right(text.replace(item.check["facts"][0][0], "nothing"), item.check)
        other = item.check["contradictions"][0]
        wordy = text.replace(item.check["facts"][0][0], f"{item.check['facts'][0][0]} and {other}")
        assert not right(wordy, item.check)
        assert manner in ("ends with", "begins with")


def test_a_call_too_few_too_many_or_otherwise() -> None:
    for item in items("function_calling"):
        text = reply(item)
        if not item.check["calls"]:
            assert not right('<tool_call>{"name": "x", "arguments": {}}</tool_call>', item.check, [])
            continue
        one = text.split("</tool_call>")[0] + "</tool_call>"
        assert not right(text + one, item.check, item.tools)
        assert not right(text.removeprefix(one) or "It is no tool.", item.check, item.tools)
        assert not right(text.replace('": {"', '": {"x', 1), item.check, item.tools)
        assert not right(text[: -len('"}}</tool_call>')], item.check, item.tools)
