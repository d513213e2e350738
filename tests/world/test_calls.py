"""Requests for tools: each reference call is what a reader of request and schemas would write."""

import re
from random import Random
from typing import Any

import pytest

from prunus.world.calls import ARGUMENTS, VERBS, scene
from prunus.world.items import Turn

_REQUEST = re.compile(r"(?:(?:Please|I want you to) |, and )(\w+) the (\w+) with ((?:and |\"?\w+\"? ?)+)")
PARTS = ("train", "held_out")
LEVELS = ("easy", "medium", "hard")


def requested(question: str) -> list[tuple[str, list[Any]]]:
    """What a question requests, read with a regular expression: the names of tools, and values in their order."""
    found = []
    for verb, noun, values in _REQUEST.findall(question):
        found.append((f"{verb}_{noun}", [_value(word.strip()) for word in values.split(" and ")]))
    return found


def _value(word: str) -> Any:
    return word.strip('"') if word.startswith('"') else int(word)


def offered(tools: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Tools by name, each with the types of its arguments in order."""
    return {
        tool["function"]["name"]: {
            name: entry["type"] for name, entry in tool["function"]["parameters"]["properties"].items()
        }
        for tool in tools
    }


def called(turn: Turn) -> list[tuple[str, dict[str, Any]]]:
    functions = [call["function"] for call in turn.answer.get("tool_calls", [])]
    return [(function["name"], function["arguments"]) for function in functions]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("level", LEVELS)
def test_calls_match_the_request(part: Any, level: Any) -> None:
    random, kinds = Random(3), set()
    for _ in range(60):
        made = scene(random, part, level, 3)
        tools = offered(made.tools)
        assert len(tools) == len(made.tools)
        for turn in made.turns:
            wanted = requested(turn.question)
            assert wanted, turn.question
            known = [name in tools for name, _ in wanted]
            kinds.add((len(wanted), all(known)))
            if all(known):
                calls = [(name, dict(zip(tools[name], values, strict=True))) for name, values in wanted]
                assert called(turn) == calls
                assert turn.check == {
                    "calls": [{name: {key: [value] for key, value in values.items()}} for name, values in calls]
                }
                types = [ARGUMENTS[key] for _, values in calls for key in values]
                values = [value for _, values in calls for value in values.values()]
                assert [isinstance(value, int) for value in values] == [kind == "integer" for kind in types]
            else:
                assert len(wanted) == 1
                assert called(turn) == []
                assert turn.check == {"calls": []}
                assert turn.answer["content"] == f"{wanted[0][0]} is no tool."
    assert kinds == {(1, True), (2, True), (1, False)}  # one call, several, and none


@pytest.mark.parametrize("level", LEVELS)
def test_tools_of_a_scene_take_values_of_the_same_types(level: Any) -> None:
    """So that a request's values do not reveal the tool."""
    random = Random(4)
    for _ in range(60):
        types = [sorted(one.values()) for one in offered(scene(random, "train", level, 0).tools).values()]
        assert all(one == types[0] for one in types)


@pytest.mark.parametrize("level", LEVELS)
def test_verbs_are_few_and_schemas_are_whole(level: Any) -> None:
    random = Random(5)
    for _ in range(60):
        tools = scene(random, "train", level, 0).tools
        names = [tool["function"]["name"] for tool in tools]
        assert len({name.partition("_")[0] for name in names}) <= 2
        assert {name.partition("_")[0] for name in names} <= set(VERBS)
        for tool in tools:
            parameters = tool["function"]["parameters"]
            assert parameters["required"] == list(parameters["properties"])
            assert {key: entry["type"] for key, entry in parameters["properties"].items()}.items() <= ARGUMENTS.items()
