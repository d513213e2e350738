"""Rows of llm-foundry's files, as the columns that the harness reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.steps.evaluate.columns import arc, lambada, piqa, winogrande

WORDS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4)


def test_a_question_of_arc_has_lettered_choices() -> None:
    row = {"query": "Question: Which is red?\nAnswer:", "choices": ["plum", "cherry", "almond"], "gold": 1}
    assert arc(row) == {
        "question": "Which is red?",
        "choices": {"text": ["plum", "cherry", "almond"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    }


def test_a_goal_of_piqa_has_two_solutions() -> None:
    row = {"query": "Question: Peel a plum.\nAnswer:", "choices": ["Use a knife.", "Use a spoon."], "gold": 0}
    assert piqa(row) == {"goal": "Peel a plum.", "sol1": "Use a knife.", "sol2": "Use a spoon.", "label": 0}


@given(WORDS, WORDS, WORDS, st.booleans(), st.integers(0, 1))
def test_a_sentence_of_winogrande_gives_both_options_back(
    start: list[str], first: list[str], second: list[str], alone: bool, gold: int
) -> None:
    """Filled with either option, the sentence is what the row has."""
    beginning = [] if alone else start
    options = [" ".join([*beginning, "1", *first]), " ".join([*beginning, "2", *second])]
    row = winogrande({"context_options": options, "continuation": "was ripe.", "gold": gold})
    filled = [row["sentence"].replace("_", row[f"option{number}"]) for number in (1, 2)]
    assert filled == [f"{option} was ripe." for option in options]
    assert row["answer"] == str(gold + 1)
    assert [row["option1"][0], row["option2"][0]] == ["1", "2"]  # the words that both share are in the sentence


def test_a_passage_of_lambada_ends_with_its_last_word() -> None:
    assert lambada({"context": "She ate the", "continuation": "plum"}) == {"text": "She ate the plum"}


@pytest.mark.parametrize(
    ("convert", "row"),
    [(arc, {"answerKey": "A"}), (piqa, {"goal": ""}), (winogrande, {"sentence": ""}), (lambada, {"text": ""})],
)
def test_rows_with_the_harness_columns_are_not_changed(convert, row: dict[str, str]) -> None:
    assert convert(row) is row
