"""Against a server of our own on loopback, which says what vLLM's says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus import client
from prunus.cli.main import main
from prunus.data.tokens import Tokens
from prunus.errors import HubError
from prunus.inference import server
from prunus.models.pretrained import load_tokenizer
from tests.fake import Fake, serving
from tests.steps.generate.making import generate, make_stream, with_template, write_rows


@pytest.fixture
def fake(monkeypatch) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.delenv(server.KEY, raising=False)
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    return make_stream(teacher, corpus, tmp_path_factory.mktemp("tokens") / "stream")


def served(fake: Fake, concurrency: int = 4, path: str = "/v1/") -> dict:
    return {"url": fake.url + path, "model": "teacher", "concurrency": concurrency}


def test_a_server_writes_in_place_of_transformers(teacher, stream, fake, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(server.KEY, "secret")
    options = {"samples": 6, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 9}
    written = generate(teacher, tmp_path / "out", stream, server=served(fake), **options)
    tokens, tokenizer = Tokens.open(tmp_path / "out"), load_tokenizer(teacher)
    assert {line["answer"] for line in written} == {" plum tree"}
    assert sorted(asked["prompt"] for asked in fake.asked) == sorted(line["prompt"] for line in written)
    for asked in fake.asked:
        known = {key: asked[key] for key in ("path", "model", "max_tokens", "temperature", "top_p")}
        assert known == {
            "path": "/v1/completions", "model": "teacher", "max_tokens": 9, "temperature": 0.7, "top_p": 0.9
        }  # fmt: skip
    assert len({asked["seed"] for asked in fake.asked}) == 6
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer secret"}
    answer = [*tokenizer(" plum tree")["input_ids"], tokenizer.eos_token_id]
    starts = [0, *tokens.ends[:-1].tolist()]
    for start, end, line in zip(starts, tokens.ends.tolist(), written, strict=True):
        assert tokens.ids[start:end].tolist() == [*tokenizer(line["prompt"])["input_ids"], *answer]


def test_the_reason_that_an_answer_ended_is_recorded(teacher, stream, fake, tmp_path) -> None:
    fake.choice = {"text": " plum", "finish_reason": "length"}
    generate(teacher, tmp_path / "cut", stream, samples=1, server=served(fake, path=""))
    fake.choice = {"text": " plum", "finish_reason": "stop", "stop_reason": 7}
    generate(teacher, tmp_path / "named", stream, samples=1, server=served(fake))
    cut, named = (Tokens.open(tmp_path / name).ids.tolist() for name in ("cut", "named"))
    assert named == [*cut, 7]


def test_a_beginning_that_the_server_adds_is_not_sent(teacher, fake, tmp_path) -> None:
    chat = with_template(teacher, tmp_path / "chat")
    tokenizer = load_tokenizer(chat)
    rows = write_rows(tmp_path / "x.jsonl", "a plum?", column="text")
    (line,) = generate(chat, tmp_path / "plain", prompts=[str(rows)], server=served(fake))
    assert fake.asked[-1]["prompt"] == line["prompt"] == "<s>user: a plum?\n<s>assistant:"
    raw = json.loads((chat / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    raw["post_processor"] = {
        "type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [tokenizer.bos_token_id], "tokens": ["<s>"]}},
    }  # fmt: skip
    (chat / "tokenizer.json").write_text(json.dumps(raw))
    assert load_tokenizer(chat)("")["input_ids"] == [tokenizer.bos_token_id]
    (line,) = generate(chat, tmp_path / "begun", prompts=[str(rows)], server=served(fake))
    assert line["prompt"] == "<s>user: a plum?\n<s>assistant:"
    assert fake.asked[-1]["prompt"] == "user: a plum?\n<s>assistant:"


def test_a_busy_server_is_queried_again_and_a_refusal_is_reported(teacher, stream, fake, tmp_path) -> None:
    fake.failures = [503, 429, 500]
    assert len(generate(teacher, tmp_path / "busy", stream, samples=2, server=served(fake))) == 2
    assert len(fake.asked) == 5
    fake.failures = [404]
    with pytest.raises(HubError, match=r"generate.server: .*/v1/completions refuses the request: 404 .*no such model"):
        generate(teacher, tmp_path / "refused", stream, samples=2, server=served(fake))
    fake.failures = [503] * 100
    with pytest.raises(HubError, match=r"generate.server.url: .* gives no usable answer after 6 tries: 503"):
        generate(teacher, tmp_path / "never", stream, samples=2, server=served(fake))
    fake.failures = []
    fake.choice = {"message": {"content": "chat"}}
    with pytest.raises(HubError, match=r"expected .*choices: \[\{text, finish_reason\}\]\}"):
        generate(teacher, tmp_path / "odd", stream, samples=2, server=served(fake))


def test_a_command_that_its_server_left_resumes(teacher, corpus, fake, tmp_path, capsys) -> None:
    words = ["generate", teacher, "--corpus", corpus, "--samples", 6, "--max-new-tokens", 4, "--prompt-tokens", 5]
    words += ["--server.url", fake.url, "--server.model", "teacher", "--server.concurrency", 1]
    words = [*map(str, words), "--out", str(tmp_path / "out")]
    fake.failures = [400, 200, 200]
    assert main(words) == 2
    assert "refuses the request: 400" in capsys.readouterr().err
    kept = len(next(tmp_path.glob("out.partial/checkpoints/*/answers.jsonl")).read_text().splitlines())
    assert kept >= 2
    before = len(fake.asked)
    assert main(words) == 0
    assert 6 - kept <= len(fake.asked) - before <= 7 - kept  # one request may have been on its way at the end
    assert "incomplete" in capsys.readouterr().out
    assert main([*words[:-1], str(tmp_path / "other"), "--server.url", "localhost"]) == 2
    assert "expected text that matches ^https?://" in capsys.readouterr().err
