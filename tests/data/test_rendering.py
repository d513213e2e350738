"""Chat templates within limits, in a process of their own."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from prunus.data import rendering
from prunus.data.rendering import render, stop
from prunus.data.turns import LEARNT
from prunus.errors import DataError

HI = [{"role": "user", "content": "hi"}]
CALL = [{"type": "function", "function": {"name": "pick"}}]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stop()
    monkeypatch.setattr(rendering, "CPU_SECONDS", 0.4)
    monkeypatch.setattr(rendering, "CHARACTERS", 10_000)
    yield
    stop()


WITHOUT_END = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a power": "{{ 10 ** (10 ** 8) }}",
    "a string": "{{ ('a' * 50000) ~ ('b' * 50000) }}",
    "all memory": "{{ 'a' * (10 ** 11) }}",
    "a width": "{{ '%99999999999d' % 1 }}",
    "a recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
}


@pytest.mark.usefixtures("narrow")
def test_work_without_end_is_refused_and_the_next_conversation_rendered() -> None:
    for template in WITHOUT_END.values():
        with pytest.raises(DataError, match="^row 3: the chat template (was stopped|makes|takes more|refuses it)"):
            render(template, HI, "row 3")
        assert render("{{ messages[0].content }}", HI, "row 3")[0] == "hi"


def test_it_works_in_any_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(render("{{ messages[0].content }}", HI, "x")))
    thread.start()
    thread.join()
    assert found == [("hi", [])]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "refuses it: Expected an expression"),
        ("{{ raise_exception('no rules') }}", "refuses it: no rules"),
        ("{{ messages[7].content.x }}", "refuses it: .* has no element 7"),
        ("{{ 'a\ud800' }}", r"character 2 is U\+D800, half of a surrogate pair"),
        ("{{ raise_exception('\ud800') }}", r"refuses it: \\ud800"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses it"),
        ({"a": "x", "b": "y"}, "has the chat templates a, b and none that is `default`"),
    ],
)
def test_what_a_template_cannot_show_is_refused(template: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"row 3.*{message}"):
        render(template, HI, "row 3")


def test_half_of_a_surrogate_pair_in_a_turn_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 3.*character 3 is U\+DC00"):
        render("{{ messages[0].content }}", [{"role": "user", "content": "hi\udc00"}], "row 3")


def test_of_several_templates_the_one_that_transformers_takes(teacher: Any) -> None:
    from prunus.models.pretrained import load_tokenizer

    tokenizer = load_tokenizer(teacher)
    tokenizer.chat_template = {"default": "D {{ eos_token }}", "tool_use": "T {{ eos_token }}", "rag": "R"}
    for templates in (tokenizer.chat_template, {"default": "only"}):
        tokenizer.chat_template = templates
        for tools in (None, CALL):
            theirs = tokenizer.apply_chat_template(HI, tools=tools, tokenize=False)
            assert render(templates, HI, "x", tools, tokenizer.special_tokens_map)[0] == theirs


def test_no_template_sees_the_mark_of_a_turn_that_is_not_learnt() -> None:
    turn = {"role": "assistant", "content": "no", LEARNT: False, "name": None}
    assert render("{{ messages | tojson }}", [turn], "x")[0] == '[{"role": "assistant", "content": "no"}]'
