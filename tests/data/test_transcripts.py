"""Conversations that are stored as one text: written, and read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.transcripts import refuse_other_forms, transcript
from prunus.errors import DataError

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
TURN = st.tuples(st.sampled_from(list(SPEAKERS)), st.text("ab: \n", min_size=1, max_size=8).filter(str.strip))


@given(st.lists(TURN, min_size=1, max_size=6), st.booleans())
def test_turns_are_read_as_they_were_written(turns: list[tuple[str, str]], is_open: bool) -> None:
    """`is_open`: the text ends where the assistant is to answer."""
    turns = [*turns, ("assistant", "")] if is_open else turns
    text = "".join(f"\n\n{SPEAKERS[role]}: {content}" for role, content in turns)
    assert transcript(text, "row 1") == [{"role": role, "content": content.strip()} for role, content in turns]


@pytest.mark.parametrize("text", ["", "A plum.", "Humans: a plum", "The Human: a plum", "User: a plum"])
def test_other_texts_are_no_transcripts(text: str) -> None:
    assert transcript(text, "row 1") is None


def test_a_speaker_within_a_line_begins_no_turn() -> None:
    text = "Human: Who is Assistant: you?\nHuman: me\n\nAssistant: A plum."
    assert transcript(text, "row 1") == [
        {"role": "user", "content": "Who is Assistant: you?\nHuman: me"},
        {"role": "assistant", "content": "A plum."},
    ]


def test_an_empty_turn_of_the_user_is_refused() -> None:
    with pytest.raises(DataError, match="row 1, turn 2: the user's turn is empty"):
        transcript("Human: a\n\nHuman: \n\nAssistant: b", "row 1")


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("[INST] plum [/INST] cherry", r"\[INST\]"),
        ("<s> <|im_start|>user\nplum", r"<s> <\|im_start\|>"),
        ("### Instruction: plum\n### Response: cherry", "### Instruction:"),
        ("**User**: plum\n**Assistant**: cherry", r"\*\*User\*\*:"),
        ("Question: plum? Answer: cherry", "Question:"),
    ],
)
def test_answers_that_are_transcripts_in_other_forms_are_refused(text: str, begin: str) -> None:
    with pytest.raises(DataError, match=rf"^row 1 begins with a turn of its own \('{begin}'\)"):
        refuse_other_forms(text, "row 1")


@pytest.mark.parametrize("text", ["A plum.", "Answer: a plum", "User: a plum", "The user: plum. Answer: cherry"])
def test_plain_answers_are_accepted(text: str) -> None:
    refuse_other_forms(text, "row 1")
