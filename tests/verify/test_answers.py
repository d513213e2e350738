import pytest

from prunus.verify.answers import NO_ANSWER, answered, exact_match, normalised, says_unanswerable, token_f1
from prunus.verify.persona import consistent, mentions, out_of_role


def test_normalised_text_has_no_articles_marks_or_capitals() -> None:
    assert normalised(" The  plum, a Cherry -- and AN almond! ") == "plum cherry and almond"


@pytest.mark.parametrize(
    ("answer", "gold", "f1", "exact"),
    [
        ("The plum.", ["plum"], 1.0, 1.0),
        ("a red plum", ["plum", "fig"], 2 / 3, 0.0),
        ("plum plum", ["plum"], 2 / 3, 0.0),
        ("cherry", ["plum"], 0.0, 0.0),
        ("the", ["plum"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
    ],
)
def test_f1_and_exact_match(answer: str, gold: list[str], f1: float, exact: float) -> None:
    assert token_f1(answer, gold) == pytest.approx(f1)
    assert exact_match(answer, gold) == exact
    assert answered(answer, gold) == (pytest.approx(f1), exact)


@pytest.mark.parametrize(
    "answer",
    [NO_ANSWER, "The context doesn't mention it.", "I can’t find that.", "It is not mentioned.", "unanswerable"],
)
def test_a_question_without_an_answer_needs_a_refusal(answer: str) -> None:
    assert says_unanswerable(answer)
    assert answered(answer, []) == (1.0, 1.0)
    assert answered("In 1869.", []) == answered(" ", []) == (0.0, 0.0)
    assert token_f1(NO_ANSWER, ["1869"]) == 0


def test_a_fact_is_found_by_any_spelling_as_whole_words() -> None:
    assert mentions("I was born in  PRAGUE.", ["Praha", "Prague"])
    assert not mentions("In Pragueville.", ["Prague"])
    assert mentions("I am 41 (nearly)", ["41"])
    assert not mentions("anything", ["", " "])


def test_a_persona_holds_its_facts_and_its_role() -> None:
    assert consistent("I am Jan, a baker.", [["Jan"], ["baker", "bread maker"]])
    assert not consistent("I am Jan.", [["Jan"], ["baker"]])
    assert not consistent("I am Jan the baker; call me Petr.", [["Jan"]], ["Petr"])
    assert not consistent("As an AI language model, I have no name, but Jan will do.", [["Jan"]])
    assert out_of_role("I'm just an AI")
    assert not out_of_role("As an apprentice I had no name.")
