"""Function calling: tool schemas and a request; one call, several, or none where no tool fits.

An answer first says what it is about to call, with the parameters as the schema has them: in saying so the tool is
found, or is not, before anything is called.
"""

from __future__ import annotations

from random import Random
from typing import Any

from prunus.world.config import Difficulty, Part
from prunus.world.items import Message, Scene, Turn, said
from prunus.world.words import Words

VERBS = (
    "open", "close", "find", "move", "paint", "clean", "sell", "buy",
    "lock", "fill", "mend", "send", "hide", "mark", "weigh", "lift",
)  # fmt: skip
ARGUMENTS = {
    "town": "string", "owner": "string", "guest": "string", "shop": "string", "street": "string", "ship": "string",
    "count": "integer", "size": "integer", "hour": "integer", "price": "integer",
}  # fmt: skip
NO_TOOL = "{verb}_{noun} is no tool."
_TOOLS = {"easy": (2, 4), "medium": (2, 4), "hard": (3, 4)}
_VALUES = {"easy": (1, 2), "medium": (1, 3), "hard": (2, 3)}
_ASKED = ("Please {verb} the {noun}", "I want you to {verb} the {noun}")
_NONE: dict[Part, float] = {"train": 0.3, "held_out": 0.15}  # training has more of what is learnt last
_SEVERAL = 0.2

Tool = tuple[str, str, list[str]]
"""Verb, noun, names of the arguments."""


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """Tools, and so many requests."""
    words = Words(random, part)
    tools: list[Tool] = []
    for _ in range(random.randint(*_TOOLS[difficulty])):
        noun = tools[-1][1] if tools and random.random() < 0.3 else words.thing()
        verb = random.choice([verb for verb in VERBS if (verb, noun) not in {tool[:2] for tool in tools}])
        tools.append((verb, noun, random.sample(list(ARGUMENTS), random.randint(*_VALUES[difficulty]))))
    random.shuffle(tools)
    asked = [_turn(random, words, tools, difficulty) for _ in range(turns)]
    return Scene(asked, tools=[_schema(tool) for tool in tools])


def _turn(random: Random, words: Words, tools: list[Tool], difficulty: Difficulty) -> Turn:
    opening = random.choice(_ASKED[: 1 if difficulty == "easy" else 2])
    if random.random() < _NONE[words.part]:
        verb, noun, names = _stranger(random, words, tools, difficulty)
        text, _ = _values(words, (verb, noun, names))
        refusal = NO_TOOL.format(verb=verb, noun=noun)
        return Turn(f"{opening.format(verb=verb, noun=noun)}{text}.", said(refusal), {"calls": []})
    chosen = random.sample(tools, 2) if random.random() < _SEVERAL else [random.choice(tools)]
    parts, calls = [], []
    for number, (verb, noun, names) in enumerate(chosen):
        text, values = _values(words, (verb, noun, names))
        parts.append((f", and {verb} the {noun}" if number else opening.format(verb=verb, noun=noun)) + text)
        calls.append((f"{verb}_{noun}", values))
    check = {"calls": [{name: {key: [value] for key, value in values.items()}} for name, values in calls]}
    return Turn("".join(parts) + ".", _called(calls), check)


def _stranger(random: Random, words: Words, tools: list[Tool], difficulty: Difficulty) -> Tool:
    """What no tool is for: a noun that none has, or, where it is not to be easy, a verb that none has for it."""
    verb, noun, names = random.choice(tools)
    if difficulty == "easy" or random.random() < 0.5:
        return verb, words.thing(), names
    offered = {tool[0] for tool in tools if tool[1] == noun}
    return random.choice([verb for verb in VERBS if verb not in offered]), noun, names


def _values(words: Words, tool: Tool) -> tuple[str, dict[str, Any]]:
    """The arguments as a request has them, in the schema's order, and as a call does."""
    values: dict[str, Any] = {}
    texts = []
    for name in tool[2]:
        number = ARGUMENTS[name] == "integer"
        value = words.number() if number else words.name()
        values[name] = int(value) if number else value
        texts.append(value if number else f'"{value}"')
    return " with " + " and ".join(texts), values


def _called(calls: list[tuple[str, dict[str, Any]]]) -> Message:
    functions = [{"name": name, "arguments": values} for name, values in calls]
    called = [{"type": "function", "function": function} for function in functions]
    plan = ", ".join(f"{name}({', '.join(values)})" for name, values in calls)
    return {"role": "assistant", "content": plan, "tool_calls": called}


def _schema(tool: Tool) -> dict[str, Any]:
    verb, noun, names = tool
    parameters = {
        "type": "object",
        "properties": {name: {"type": ARGUMENTS[name]} for name in names},
        "required": names,
    }
    function = {"name": f"{verb}_{noun}", "description": f"{verb.capitalize()} the {noun}.", "parameters": parameters}
    return {"type": "function", "function": function}
