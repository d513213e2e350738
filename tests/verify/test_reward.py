"""What answers are worth by their checks."""

import numpy as np
import pytest

from prunus.errors import DataError
from prunus.verify.reward import pass_at, reward

TOOLS = [{"type": "function", "function": {"name": "pick", "parameters": {
    "type": "object", "properties": {"tree": {"type": "string"}}, "required": ["tree"]}}}]  # fmt: skip
CALLS = {"calls": [{"pick": {"tree": ["plum"]}}]}
FOLLOWS = {"instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
           "kwargs": [{}, {"keywords": ["plum"]}]}  # fmt: skip
ROLE = {"facts": [["Mira"], ["baker", "bread maker"]], "contradictions": ["smith"], "manner": ["begins with", "well"]}


@pytest.mark.parametrize(
    ("answer", "check", "wanted"),
    [
        ("a plum", FOLLOWS, 1.0),
        ("a plum, ripe", FOLLOWS, 0.5),
        ("a fig, ripe", FOLLOWS, 0.0),
        ("the plum", {"answers": ["plum"]}, 1.0),
        ("a ripe plum", {"answers": ["plum"]}, (2 / 3 + 0) / 2),
        ("", {"answers": []}, 0.0),
        ('{"name": "pick", "arguments": {"tree": "plum"}}', CALLS, 1.0),
        ('pick(tree="plum")', CALLS, 1.0),
        ('pick(tree="fig")', CALLS, 0.2),
        ("a plum", CALLS, 0.0),
        ("there is no such tree", {"calls": []}, 1.0),
        ('pick(tree="fig")', {"calls": []}, 0.0),
        ("", {"calls": []}, 0.0),
        ('{"name": "pick", "argu', {"calls": []}, 0.0),
        ("there is no such tree", {"calls": None}, 1.0),
        ('pick(tree="fig")', {"calls": "any"}, 1.0),
        ("a fig", {"calls": "any"}, 0.0),
        ("", {"answers": ["the"]}, 0.0),
        ("Mira, a smith", {"facts": ["Mira"], "contradictions": ["smith"]}, 0.5),
        ("Well I am Mira the baker", ROLE, 1.0),
        ("I am Mira", {"facts": ["Mira"]}, 1.0),
        ("Well", {"manner": ["begins with", "well"]}, 1.0),
        ("so well", {"manner": ["ends with", "well"]}, 1.0),
    ],
)
def test_rewards(answer: str, check: dict, wanted: float) -> None:
    assert reward(answer, check, TOOLS, "here") == pytest.approx(wanted)


def test_half_a_role_is_worth_something_and_less() -> None:
    whole, half, none = (reward(text, ROLE, (), "here") for text in ("Well I am Mira a baker", "I am Mira", "hm"))
    assert whole > half > none == 0


@pytest.mark.parametrize(
    "check",
    [
        {}, {"colour": 1}, {"judge": True}, {"calls": 3}, {"manner": ["sings", "x"]},
        {"instruction_id_list": ["x:y"], "kwargs": [{}]},
    ],
)  # fmt: skip
def test_a_check_that_cannot_be_read_names_the_row(check: dict) -> None:
    with pytest.raises(DataError, match=r"x.jsonl, row 2: its check|no_such|x:y"):
        reward("plum", check, TOOLS, "x.jsonl, row 2")


def test_pass_at_k_is_what_drawing_gives() -> None:
    draw = np.random.default_rng(0)
    right = np.array([1] * 3 + [0] * 7)
    drawn = np.mean([draw.choice(right, 4, replace=False).any() for _ in range(20_000)])
    assert pass_at(10, 3, 4) == pytest.approx(drawn, abs=0.01)
    assert (pass_at(5, 0, 3), pass_at(5, 5, 1), pass_at(5, 2, 1)) == (0.0, 1.0, pytest.approx(0.4))
