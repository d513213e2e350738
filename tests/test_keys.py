"""Keys are taken out of what is written, and ordinary words are left."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.keys import HIDDEN, hide

KEY = "sk+EX/AMPLE=1"


@pytest.mark.parametrize(
    "said",
    [
        KEY, f"wrong key {KEY}.", f"?key={quote(KEY, safe='')}", base64.b64encode(KEY.encode()).decode(),
        f"Authorization: Bearer {KEY}", f'{{"authorization": "Bearer {KEY}"}}', KEY * 3,
    ],
)  # fmt: skip
def test_a_known_key_is_hidden_in_every_form(said: str) -> None:
    hidden = hide(said, KEY)
    assert HIDDEN in hidden
    assert not any(part in hidden for part in (KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()))


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("Authorization: Basic bWU6aHVudGVyMg==", "Authorization: Basic (hidden)"),
        ("header 'authorization': 'bearer abcdef.123-456'", "header 'authorization': 'bearer (hidden)'"),
        ("at https://me:hunter2@h/v1 now", "at https://(hidden)@h/v1 now"),
        ("https://h/v1?x=1&token=abcdef1234&y=2", "https://h/v1?x=1&token=(hidden)&y=2"),
        ("AIza" + "a1B2c" * 7, "(hidden)"),
    ],
)
def test_keys_are_known_by_their_form(said: str, hidden: str) -> None:
    assert hide(said) == hidden


def test_keys_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "no-known-form")
    monkeypatch.setenv("OTHER_API_KEY", "EMPTY")  # a word, as some servers have it
    assert hide("a no-known-form EMPTY") == "a (hidden) EMPTY"


@pytest.mark.parametrize(
    "text",
    ["http://localhost:8000/v1/chat/completions", "a bearer of news", "basic understanding", "me@example.com: hello",
     "key=value", "task-1", "tokens: 5", "https://h:8/a@b", "${USER}:${PASSWORD}@h", "http://${A}:${B}@h/v1"],
)  # fmt: skip
def test_ordinary_words_are_left(text: str) -> None:
    assert hide(text, "", None) == text


@given(st.text(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=40))
def test_no_text_holds_a_key_afterwards(around: str, key: str) -> None:
    if key not in HIDDEN:
        assert key not in hide(f"{around} {key} {around}", key).replace(HIDDEN, " ")
