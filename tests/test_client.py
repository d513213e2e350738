"""Whatever a server sends is an answer, a hole or a `HubError`, soon, and the key is in none of them."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus import client
from prunus.client import BadAnswerError, Server
from prunus.console import Console
from prunus.errors import HubError
from prunus.inference import server
from prunus.inference.config import GenerationOptions, ServerConfig
from prunus.inference.prompts import Prompt
from prunus.judging import judge as judging
from prunus.judging.config import JudgeConfig
from prunus.judging.judge import Judge, _verdict
from prunus.models.pretrained import load_tokenizer
from tests.bad import ANSWERED, KEY, MODES, misbehaving, said
from tests.fuzz import fuzz

QUIET = Console(quiet=True)
PATIENCE = 0.4


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")
    monkeypatch.setenv(judging.KEY, KEY)
    monkeypatch.setenv(server.KEY, KEY)
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.setattr(client, "TRIES", 2)
    monkeypatch.setattr(client, "MAX_BYTES", 1 << 20)


def judge(url: str, out: Path, timeout: float = PATIENCE) -> Judge:
    config = JudgeConfig(url=url, model="m", concurrency=1, timeout=timeout)
    return Judge(config, out / "judgements.jsonl", "evaluate.judge")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "half"])
def test_a_judge_gives_a_verdict_or_a_hole(mode: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with misbehaving(mode) as bad:
        one = judge(bad.url, tmp_path)
        grades = one.grade({"x": ("system", "question")}, QUIET)
        requests = len(bad.requests)
        again = judge(bad.url, tmp_path)
        second = again.grade({"x": ("system", "question")}, QUIET)
    assert time.monotonic() - start < 6 * PATIENCE + 3
    assert KEY not in str(one.tally)
    assert KEY not in (tmp_path / "judgements.jsonl").read_text(encoding="utf-8")
    assert second == grades
    if mode in ANSWERED:
        assert grades == {"x": 6.0}
        assert (one.tally.missing, one.tally.hole) == (0, None)
        assert len(bad.requests) == requests  # a verdict that is kept is not asked for again
    else:
        assert grades == {}
        assert (one.tally.missing, one.tally.failed) == (1, 1)
        assert str(one.tally.hole).startswith("evaluate.judge")
        assert len(bad.requests) > requests


@pytest.fixture(scope="module")
def tokenizer(teacher: Path):
    return load_tokenizer(teacher)


def written(url: str, tokenizer) -> list:
    config = ServerConfig(url=url, model="m", timeout=PATIENCE, concurrency=2)
    prompts = [Prompt(i, tokenizer("a plum")["input_ids"], "a plum") for i in range(2)]
    return list(server.answers([prompts], GenerationOptions(4, server=config), tokenizer))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "half"])
def test_a_writer_gives_answers_or_an_error(mode: str, tokenizer) -> None:
    start = time.monotonic()
    with misbehaving(mode) as bad:
        if mode in ANSWERED:
            found = dict(written(bad.url, tokenizer))
            assert set(found) == {0, 1}
            assert all(answer.text.endswith("[[6]]") and answer.finish == "stop" for answer in found.values())
            assert json.dumps(found[0].text, ensure_ascii=False).encode()  # whole UTF-8
        else:
            with pytest.raises(HubError, match=r"^generate\.server") as caught:
                written(bad.url, tokenizer)
            assert KEY not in str(caught.value)
    assert time.monotonic() - start < 6 * PATIENCE + 3


@pytest.mark.parametrize("stop", [10**9, -1, True, 1.5, [], {}, "9" * 5000])
def test_what_ended_an_answer_is_a_token_or_a_text(stop, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODES, "stop", said("a plum", stop_reason=stop))
    with misbehaving("stop") as bad:
        if isinstance(stop, str):
            assert written(bad.url, tokenizer)[0][1].finish == "stop"
        else:
            with pytest.raises(HubError, match="stop_reason|expected"):
                written(bad.url, tokenizer)


def test_the_key_is_sent_to_no_other_server(tmp_path: Path) -> None:
    with misbehaving("good") as other, misbehaving("redirect elsewhere, 307", elsewhere=f"{other.url}/v1/x") as bad:
        one = judge(bad.url, tmp_path)
        assert one.grade({"x": ("s", "q")}, QUIET) == {}
        assert other.requests == []
        assert KEY.encode() in bad.requests[0]
        assert f"redirects to {other.url}/, another server" in str(one.tally.hole)


def test_a_redirect_within_the_server_keeps_request_and_key(tmp_path: Path) -> None:
    with misbehaving("same origin 307") as bad:
        assert judge(bad.url, tmp_path).grade({"x": ("s", "q")}, QUIET) == {"x": 6.0}
        assert [head.split(b" ")[:2] for head in bad.requests] == [
            [b"POST", b"/v1/chat/completions"], [b"POST", b"/moved"]
        ]  # fmt: skip
        assert all(f"Bearer {KEY}".encode() in head for head in bad.requests)


def test_missing_grades_are_requested_again(tmp_path: Path) -> None:
    """A judge that refuses every other request: never three in a row."""
    wanted = {i: ("s", f"question {i}") for i in range(5)}
    with misbehaving("half") as bad:
        one = judge(bad.url, tmp_path)
        assert len(one.grade(wanted, QUIET)) == 3
        assert (one.tally.missing, one.tally.failed, one.tally.refused) == (2, 2, 2)
        assert "refuses the request: 400" in str(one.tally.hole)
        for _ in range(3):
            one = judge(bad.url, tmp_path)
            grades = one.grade(wanted, QUIET)
        assert grades == dict.fromkeys(range(5), 6.0)
        assert (one.tally.missing, one.tally.hole) == (0, None)
        assert len(bad.requests) == 5 + 2 + 1 + 1


@pytest.mark.parametrize("key", ["a b", "näh", "a\nb"])
def test_a_key_that_no_header_can_carry(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judging.KEY, key)
    with misbehaving() as bad, pytest.raises(HubError, match="the key holds characters") as caught:
        judge(bad.url, tmp_path).grade({"x": ("s", "q")}, QUIET)
    assert key not in str(caught.value)


def test_an_address_keeps_its_query_and_hides_it() -> None:
    asked = Server("https://me:hunter2@h:8/openai/v1/?api-version=3&key=abcdefgh", "completions", "w", None, 1, 1)
    assert str(asked.endpoint) == "https://me:hunter2@h:8/openai/v1/completions?api-version=3&key=abcdefgh"
    assert asked.shown == "https://(hidden)@h:8/openai/v1/completions"


KEYS = st.sampled_from(["choices", "message", "content", "text", "finish_reason", "stop_reason"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@fuzz(100)
@given(
    JSON | JSON.map(lambda choice: {"choices": [choice]}) | JSON.map(lambda said: {"choices": [{"message": said}]}),
)
def test_any_json_is_an_answer_or_a_bad_one(value) -> None:
    for read in (_verdict, lambda answer: server._choice(answer, 100)):
        try:
            found = read(client._clean(value))
        except BadAnswerError:
            continue
        text = found if isinstance(found, str) else found["text"]
        assert text.encode() is not None


def test_damaged_rows_of_verdicts_are_queried_again(tmp_path: Path) -> None:
    with misbehaving() as bad:
        judge(bad.url, tmp_path).grade({"x": ("s", "q"), "y": ("s", "r")}, QUIET)
        file = tmp_path / "judgements.jsonl"
        first, second = file.read_bytes().splitlines(keepends=True)
        damaged = {**json.loads(second), "rating": float("nan"), "verdict": 5}
        file.write_bytes(first + b"\n5\n[]\n" + json.dumps(damaged).encode() + b'\n{"key": "cut')
        one = judge(bad.url, tmp_path)
        assert one.grade({"x": ("s", "q"), "y": ("s", "r")}, QUIET) == {"x": 6.0, "y": 6.0}
        assert len(bad.requests) == 3
