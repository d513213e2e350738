import copy
import json

import pytest

from prunus.verify.calls import match
from prunus.verify.syntax import Call, parse
from tests.real import DATA, real
from tests.verify.oracles import bfcl_checker

BFCL = DATA / "bfcl"
WEATHER = Call("city.weather", {"place": "Brno", "days": 3})


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "city.weather", "arguments": {"place": "Brno", "days": 3}}',
        '[{"name": "city.weather", "parameters": {"place": "Brno", "days": 3}}]',
        json.dumps({"function": {"name": "city.weather", "arguments": '{"place": "Brno", "days": 3}'}}),
        '{"city.weather": {"place": "Brno", "days": 3}}',
        'city.weather(place="Brno", days=3)',
        " [city.weather(place='Brno', days=1 + 2)]",
        '```json\n{"name": "city.weather", "arguments": {"place": "Brno", "days": 3}}\n```',
        '```python\ncity.weather(place="Brno", days=3)\n```',
        'Let me see. <tool_call>\n{"name": "city.weather", "arguments": {"place": "Brno", "days": 3}}\n</tool_call>',
        '<TOOLCALL>[{"name": "city.weather", "arguments": {"place": "Brno", "days": 3}}]</TOOLCALL>',
        '<|python_tag|>{"name": "city.weather", "parameters": {"place": "Brno", "days": 3}}',
        '[TOOL_CALLS] [{"name": "city.weather", "arguments": {"place": "Brno", "days": 3}}]',
        '<function=city.weather>{"place": "Brno", "days": 3}</function>',
    ],
)
def test_a_call_is_read_however_it_is_written(text: str) -> None:
    assert parse(text) == [WEATHER]


@pytest.mark.parametrize("join", ["; ", "\n", " "])
def test_several_calls_are_read(join: str) -> None:
    one = '{"name": "a", "arguments": {}}'
    assert parse(join.join([one, one])) == [Call("a"), Call("a")]
    assert parse(f"<tool_call>{one}</tool_call>{join}<tool_call>{one}</tool_call>") == [Call("a"), Call("a")]
    assert parse("[a(), b.c(x=[1, -2], y={'z': True}, t=(1, 2), n=-1.5)]") == [
        Call("a"), Call("b.c", {"x": [1, -2], "y": {"z": True}, "t": (1, 2), "n": -1.5})
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "None of them fits (sorry).", "42", "[]", "[1, 2]", '{"answer": 3}', "x + 1", "f(", "null", '"f()"',
        '{"name": "a", "arguments": [1]}', "(lambda: 0)()", "f(x=1), 3", "<tool_call>nothing</tool_call>", "[" * 5000,
    ],
)  # fmt: skip
def test_prose_is_no_call(text: str) -> None:
    assert parse(text) == []


def test_nothing_is_run() -> None:
    (call,) = parse("f(x=__import__('os').getcwd(), y=9**9**9, z=1/0, n=open(file='x'))")
    assert call.arguments == {
        "x": "__import__('os').getcwd()", "y": "9 ** 9 ** 9", "z": "1 / 0", "n": {"open": {"file": "x"}}
    }  # fmt: skip


FUNCTION = {
    "name": "book",
    "parameters": {
        "properties": {
            "title": {"type": "string"},
            "year": {"type": "integer"},
            "price": {"type": "float"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "by": {"type": "dict"},
        },
        "required": ["title"],
    },
}
POSSIBLE = {"book": {"title": ["War, and Peace"], "year": [1869, ""], "price": [5.0, ""], "tags": [["a", "B"], ""],
                     "by": [{"name": ["Leo", "L."], "born": [1828, ""]}, ""]}}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"title": "war and peace"}, True),
        ({"title": "War"}, False),
        ({"year": 1869}, False),
        ({"title": "War and Peace", "year": "1869"}, False),
        ({"title": "War and Peace", "year": True}, False),
        ({"title": "War and Peace", "price": 5}, True),
        ({"title": "War and Peace", "pages": 5}, False),
        ({"title": "War and Peace", "tags": ["A", "b"]}, True),
        ({"title": "War and Peace", "tags": ["b", "a"]}, False),
        ({"title": "War and Peace", "by": {"name": "l"}}, True),
        ({"title": "War and Peace", "by": {"born": 1828}}, False),
        ({"title": "War and Peace", "by": {"name": "Leo", "died": 1910}}, False),
    ],
)
def test_arguments_must_be_among_the_possible(arguments: dict, right: bool) -> None:
    assert match([Call("book", arguments)], [FUNCTION], [POSSIBLE]) is right


def test_each_call_is_expected_once_in_any_order() -> None:
    other = {"name": "sell", "parameters": {"properties": {}}}
    calls = [Call("sell"), Call("book", {"title": "War and Peace"})]
    wanted = [POSSIBLE, {"sell": {}}]
    assert match(calls, [FUNCTION, other], wanted)
    assert not match(calls[:1], [FUNCTION, other], wanted)
    assert not match([calls[0], calls[0]], [FUNCTION, other], wanted)
    assert not match([*calls, calls[0]], [FUNCTION, other], wanted)
    assert not match([Call("book", {"title": "War and Peace"})], [other], [POSSIBLE])


def test_the_type_names_of_json_schema_are_known_too() -> None:
    function = {"name": "f", "parameters": {"properties": {"x": {"type": "number"}, "y": {"type": "object"}}}}
    assert match([Call("f", {"x": 1, "y": {"z": 2}})], [function], [{"f": {"x": [1.0], "y": [{"z": [2]}]}}])


def broken(calls: list[dict]) -> list[list[dict]]:
    """Calls as the possible answers have them, and each way of getting one wrong."""
    found = [calls, calls[:-1], [*calls, calls[0]], calls[::-1]]
    for i, call in enumerate(calls):
        ((name, arguments),) = call.items()
        changes: list[dict] = [{f"{name}x": arguments}, {name: {**arguments, "extra": 1}}]
        for key, value in arguments.items():
            for other in (str(value), [value], 7, 7.0, True, None, "x", {}, [], {"a": 1}, [value, value]):
                changes.append({name: {**arguments, key: other}})
            changes.append({name: {k: v for k, v in arguments.items() if k != key}})
            if isinstance(value, str):
                changes += [{name: {**arguments, key: form}} for form in (value.upper(), f"{value}.", f" {value}")]
        found += [[*calls[:i], change, *calls[i + 1 :]] for change in changes]
    return found


def chosen(answer: dict, at: int) -> dict:
    """One way to write what a possible answer allows."""

    def pick(values: list):
        allowed = [value for value in values if value != ""] or values or [""]
        value = allowed[at % len(allowed)]
        if isinstance(value, dict):
            return {key: pick(inner) if isinstance(inner, list) else inner for key, inner in value.items()}
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return [{key: pick(inner) for key, inner in item.items() if isinstance(inner, list)} for item in value]
        return value

    return {
        name: {key: pick(values) for key, values in of.items() if values not in ([""], [])}
        for name, of in answer.items()
    }


@real("bfcl")
def test_verdicts_are_those_of_the_leaderboard() -> None:
    """On every category with possible answers, these themselves and broken variants of them."""
    check = bfcl_checker()
    right = wrong = 0
    for file in sorted((BFCL / "possible_answer").glob("*.json")):
        category = file.stem.removeprefix("BFCL_v4_")
        answers = {row["id"]: row["ground_truth"] for row in map(json.loads, file.open())}
        rows = [row for row in map(json.loads, (BFCL / file.name).open()) if row["id"] in answers]
        for row in rows[::4]:
            possible = answers[row["id"]]
            for output in broken([chosen(answer, at) for at, answer in enumerate(possible)]):
                try:
                    theirs = check(row["function"], copy.deepcopy(output), possible, category)
                except (TypeError, AttributeError, KeyError):
                    theirs = False  # what they trip over is no match
                calls = [Call(*next(iter(call.items()))) for call in output]
                assert match(calls, row["function"], possible) == theirs, (row["id"], output, possible)
                right, wrong = right + theirs, wrong + (not theirs)
    assert right > 500
    assert wrong > 5000


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "(" * 5000, "a" + ".a" * 900 + "(x=1)", "-" * 900 + "1"]
)
def test_an_answer_of_brackets_without_end_calls_nothing(text: str) -> None:
    for answer in (text, f"f(x={text})", json.dumps({"name": "f", "arguments": text})):
        assert all(call.name for call in parse(answer))
