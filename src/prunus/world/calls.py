"""Function calling: tool schemas and a request; one call, several, or none if no tool fits.

An answer first quotes the tool that it will call, as rendered by the chat template, so that the model determines
whether the tool exists before it calls anything.
"""

from __future__ import annotations

from random import Random
from typing import Any

from prunus.world.config import Difficulty, Part
from prunus.world.items import Message, Scene, Turn, reply
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
_NONE: dict[Part, float] = {"train": 0.3, "held_out": 0.15}  # more in training, since this is learnt last
_SEVERAL = 0.2

Tool = tuple[str, str, list[str]]
"""Verb, noun, names of the arguments."""


def scene(random: Random, part: Part, difficulty: Difficulty, turns: int) -> Scene:
    """A scene of tools and `turns` requests."""
    words = Words(random, part)
    tools: list[Tool] = []
    verbs = random.sample(VERBS, 2)  # few, so that the noun must be compared, too
    for names in _parameters(random, random.randint(*_TOOLS[difficulty]), random.randint(*_VALUES[difficulty])):
        again = (
            difficulty != "easy"
            and tools
            and random.random() < 0.3
            and sum(tool[1] == tools[-1][1] for tool in tools) == 1
        )
        noun = tools[-1][1] if again else words.thing()
        verb = random.choice([verb for verb in verbs if (verb, noun) not in {tool[:2] for tool in tools}])
        tools.append((verb, noun, names))
    random.shuffle(tools)
    requests = [_turn(random, words, tools, difficulty) for _ in range(turns)]
    return Scene(requests, tools=[_schema(tool) for tool in tools])


def _parameters(random: Random, tools: int, count: int) -> list[list[str]]:
    """`count` parameters for each tool, of the same types, so that a request's values do not reveal the tool."""
    types = [random.choice(("string", "integer")) for _ in range(count)]
    rows: list[list[str]] = [[] for _ in range(tools)]
    for kind in types:
        names = [name for name, type_ in ARGUMENTS.items() if type_ == kind]
        random.shuffle(names)
        for row in rows:
            fresh = next(name for name in names if name not in row)
            names.remove(fresh)
            names.append(fresh)
            row.append(fresh)
    return rows


def _turn(random: Random, words: Words, tools: list[Tool], difficulty: Difficulty) -> Turn:
    opening = random.choice(_ASKED[: 1 if difficulty == "easy" else 2])
    if random.random() < _NONE[words.part]:
        verb, noun, names = _stranger(random, words, tools, difficulty)
        text, _ = _values(words, (verb, noun, names))
        refusal = reply(NO_TOOL.format(verb=verb, noun=noun))
        return Turn(f"{opening.format(verb=verb, noun=noun)}{text}.", refusal, {"calls": []})
    chosen = random.sample(tools, 2) if random.random() < _SEVERAL else [random.choice(tools)]
    parts, calls = [], []
    for number, (verb, noun, names) in enumerate(chosen):
        text, values = _values(words, (verb, noun, names))
        parts.append((f", and {verb} the {noun}" if number else opening.format(verb=verb, noun=noun)) + text)
        calls.append((f"{verb}_{noun}", values))
    check = {"calls": [{name: {key: [value] for key, value in values.items()}} for name, values in calls]}
    return Turn("".join(parts) + ".", _called(calls), check)


def _stranger(random: Random, words: Words, tools: list[Tool], difficulty: Difficulty) -> Tool:
    """A request without a tool: a noun that no tool has, or, unless easy, a verb that no tool has for the noun."""
    verb, noun, names = random.choice(tools)
    if difficulty == "easy" or random.random() < 0.5:
        return verb, words.thing(), names
    offered = {tool[0] for tool in tools if tool[1] == noun}
    return random.choice([verb for verb in VERBS if verb not in offered]), noun, names


def _values(words: Words, tool: Tool) -> tuple[str, dict[str, Any]]:
    """The arguments as text of a request, in the schema's order, and as values of a call."""
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
    quoted = "\n".join(
        f"{' '.join([name, *values])}: {' '.join(ARGUMENTS[key] for key in values)}" for name, values in calls
    )
    return {"role": "assistant", "content": quoted, "tool_calls": called}


def _schema(tool: Tool) -> dict[str, Any]:
    verb, noun, names = tool
    parameters = {
        "type": "object",
        "properties": {name: {"type": ARGUMENTS[name]} for name in names},
        "required": names,
    }
    function = {"name": f"{verb}_{noun}", "description": f"{verb.capitalize()} the {noun}.", "parameters": parameters}
    return {"type": "function", "function": function}
