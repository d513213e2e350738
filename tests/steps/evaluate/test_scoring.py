import pytest

from prunus.errors import DataError
from prunus.inference.answers import Answer
from prunus.steps.evaluate.answers import TOO_LONG
from prunus.steps.evaluate.items import Item
from prunus.steps.evaluate.scoring import health, score

FUNCTION = {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}


def item(check: dict, tools=()) -> Item:
    return Item("a", [{"role": "user", "content": "?"}], check, list(tools), [], None)


def said(*texts: str) -> list[list[Answer]]:
    return [[Answer([1, 2], text, "stop")] for text in texts]


@pytest.mark.parametrize(
    ("skill", "check", "text", "scores"),
    [
        ("rag", {"answers": ["Jan Hus"]}, "Jan", {"f1": 2 / 3, "exact": 0}),
        ("rag", {"answers": []}, "I cannot find it.", {"f1": 1, "exact": 1}),
        ("function_calling", {"calls": [{"f": {"x": [1]}}]}, '{"name": "f", "arguments": {"x": 1}}', {"right": 1}),
        ("function_calling", {"calls": [{"f": {"x": [1]}}]}, "f(x=2)", {"right": 0}),
        ("function_calling", {"calls": []}, "None fits.", {"right": 1}),
        ("function_calling", {"calls": []}, "f(x=1)", {"right": 0}),
        ("function_calling", {"calls": "any"}, "f(x=7)", {"right": 1}),
        ("roleplay", {"facts": ["Jan", ["baker"]]}, "Jan, a baker", {"consistent": 1}),
        ("roleplay", {"facts": ["Jan"], "contradictions": ["Petr"]}, "Jan or Petr", {"consistent": 0}),
        ("roleplay", {"manner": ["ends with", "my dear"]}, "So it is, my dear!", {"manner": 1}),
        ("roleplay", {"manner": ["begins with", "well"]}, "So it is, well", {"manner": 0}),
    ],
)
def test_an_answer_is_worth_the_result_of_its_check(skill: str, check: dict, text: str, scores: dict) -> None:
    found = score(item(check, [{"type": "function", "function": FUNCTION}]), skill, said(text), "tasks.x")
    assert {name: found[name][0] for name in scores} == pytest.approx(scores)


def test_instructions_are_counted_one_by_one_and_together() -> None:
    check = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    found = score(item(check), "instruction_following", said("no comma"), "tasks.x")
    assert (found["prompt_strict"], found["instruction_strict"]) == ((0, 1), (1, 2))


def test_several_samples_give_pass_at_k() -> None:
    found = score(item({"answers": ["a b"]}), "rag", said("a b", "x", "b", "x"), "tasks.x")
    assert found["f1"][0] == pytest.approx((1 + 1 + 0 + 0) / 4)  # "a" is an article
    assert {name: pair[0] for name, pair in found.items() if name.startswith("pass@")} == {
        "pass@1": 0.5, "pass@2": pytest.approx(1 - 1 / 6), "pass@4": 1.0
    }  # fmt: skip


def test_a_question_that_was_not_put_is_not_right_by_silence() -> None:
    found = score(item({"calls": []}), "function_calling", [[TOO_LONG]], "tasks.x")
    assert (found["right"], found["too_long"], found["empty"]) == ((0.0, 1), (1, 1), (1, 1))


def test_health_counts_over_all_turns() -> None:
    looping, fine = Answer([1, 2] * 8, "x", "length"), Answer(list(range(9)), "y", "stop")
    found = health([looping, fine])
    assert found["length"] == (25, 2)
    assert found["cut_off"] == (1, 2)
    assert found["repetition"] == (11, 13 + 6)  # of 13 4-grams of the first two are new
    assert health([Answer([], " ", "stop")])["empty"] == (1, 1)


def test_a_check_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match=r"tasks.x: item a: its check cannot be read"):
        score(item({"manner": ["sings", "x"]}), "roleplay", said("x"), "tasks.x")
