"""What the assistant says, found in templates without marks, against what transformers says of the same with marks."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.data.rendering import render
from prunus.data.template import Dialogue, Script
from prunus.data.turns import LEARNT
from tests.data.templates import SPECIALS, TEMPLATES, WITH_THOUGHTS, WITH_TOOLS, unmarked

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
TEXT = st.text("ab012 \n.<|", min_size=1, max_size=8).filter(str.strip)
WORD = st.text("ab01_", min_size=1, max_size=4)


@st.composite
def exchanges(draw: st.DrawFn, name: str) -> list[dict[str, Any]]:
    """A conversation that the template takes: a rule, questions, answers, thoughts and calls of functions."""
    turns = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns.append({"role": "user", "content": draw(TEXT)})
        while name in WITH_TOOLS and draw(st.booleans()):
            call = {"type": "function", "function": {"name": draw(WORD), "arguments": {"x": draw(TEXT)}}}
            said = draw(st.sampled_from(["", "hm"]))
            turns.append({"role": "assistant", "content": said, "tool_calls": [call]})
            turns.append({"role": "tool", "content": draw(TEXT)})
        said = draw(TEXT)
        if name in WITH_THOUGHTS and draw(st.booleans()):
            said = f"<think>\n{draw(TEXT)}\n</think>\n\n{said}"
        turns.append({"role": "assistant", "content": said})
    return turns


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_located_by_the_marks(name: str) -> None:
    script = Script(unmarked(TEMPLATES[name]), VARIABLES, SPECIALS)
    marked = Script(TEMPLATES[name], VARIABLES, SPECIALS)

    @settings(max_examples=12, deadline=None)
    @given(exchanges(name), st.randoms(use_true_random=False))
    def hold(turns: list[dict[str, Any]], chance: Any) -> None:
        text, marks = render(TEMPLATES[name], turns, "x", variables=VARIABLES)
        assert script.shown(Dialogue("x", turns)) == (text, marks)
        answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        left = [mark for i, mark in zip(answers, marks, strict=True) if i != chance.choice(answers)]
        chosen = {i for i, mark in zip(answers, marks, strict=True) if mark in left}
        partly = [{**turn, LEARNT: False} if i in answers and i not in chosen else turn for i, turn in enumerate(turns)]
        for one in (script, marked):  # turns that are marked as not to be learnt, and those of a prompt
            assert one.shown(Dialogue("x", partly)) == (text, left)
            assert one.shown(Dialogue("x", turns, prompt=answers[-1])) == (text, marks[-1:])

    hold()
