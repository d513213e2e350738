"""Against a server of our own on loopback, that judges well, badly, or not at all."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunus import client
from prunus.console import Console
from prunus.errors import DataError
from prunus.inference.answers import Answer
from prunus.judging import judge as room
from prunus.judging.config import JudgeConfig
from prunus.judging.judge import Judge
from prunus.judging.prompts import PROMPTS, judge_prompts, rating
from prunus.steps.evaluate.items import Item
from prunus.steps.evaluate.skills import questions
from tests.fake import Fake, serving
from tests.real import DATA, real

QUIET = Console(quiet=True)


@pytest.fixture
def fake(monkeypatch) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.delenv(room.KEY, raising=False)
    with serving() as made:
        made.choice = verdict("Good. Rating: [[7]]")
        yield made


def verdict(text: str) -> dict:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}


def items(count: int, then=(), **check) -> list[Item]:
    return [
        Item(str(i), [{"role": "user", "content": f"question {i}"}], {"judge": True, **check}, [], list(then), None)
        for i in range(count)
    ]


def said(asked: list[Item]) -> list[list[list[Answer]]]:
    return [[[Answer([1], f"answer {item.id}.{turn}", "stop") for turn in range(1 + len(item.then))]] for item in asked]


def judge(fake: Fake, out: Path, **options) -> Judge:
    config = {"url": fake.url, "model": "judge", "concurrency": 1, "timeout": 5, **options}
    return Judge(JudgeConfig(**config), out / "judgements.jsonl", "evaluate.judge")


def grade(one: Judge, asked: list[Item], given: list[list[list[Answer]]]) -> dict:
    return one.grade(dict(questions(asked, given, judge_prompts(one.config, "evaluate.judge"))), QUIET)


def test_every_turn_is_graded_with_the_conversation_before_it(fake: Fake, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(room.KEY, "secret")
    fake.reply = lambda body: verdict(f"[[{4 if 'answer 0.1' in body['messages'][1]['content'] else 8}]]")
    asked = items(2, then=["and?"])
    one = judge(fake, tmp_path)
    grades = grade(one, asked, said(asked))
    assert grades == {(0, 0, 0): 8.0, (0, 0, 1): 4.0, (1, 0, 0): 8.0, (1, 0, 1): 8.0}
    assert (one.tally.asked, one.tally.graded, one.tally.malformed, one.tally.failed) == (4, 4, 0, 0)
    assert {ask["path"] for ask in fake.asked} == {"/v1/chat/completions"}
    assert {ask["model"] for ask in fake.asked} == {"judge"}
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer secret"}
    later = next(ask["messages"] for ask in fake.asked if "answer 0.1" in ask["messages"][1]["content"])
    for part in ("question 0", "answer 0.0", "and?", "answer 0.1"):
        assert part in later[1]["content"]
    assert "second" in later[0]["content"]
    saved = [json.loads(line) for line in (tmp_path / "judgements.jsonl").read_text().splitlines()]
    assert sorted(line["rating"] for line in saved) == [4, 8, 8, 8]
    assert all(line["prompt"] and line["verdict"] for line in saved)


def test_stored_grades_are_not_requested_again(fake: Fake, tmp_path: Path) -> None:
    asked = items(3)
    first = grade(judge(fake, tmp_path), asked[:2], said(asked[:2]))
    with (tmp_path / "judgements.jsonl").open("a") as file:
        file.write('{"key": "x", "rat')  # the line that a kill cut off
    assert len(fake.asked) == 2
    whole = grade(judge(fake, tmp_path), asked, said(asked))
    assert len(fake.asked) == 3
    assert set(first) < set(whole)
    assert grade(judge(fake, tmp_path), asked, said(asked)) == whole
    assert len(fake.asked) == 3


def test_verdicts_without_a_grade_are_survived_and_counted(fake: Fake, tmp_path: Path) -> None:
    fake.reply = lambda body: verdict("Splendid!" if "question 1" in body["messages"][1]["content"] else "[[9]]")
    asked = items(4)
    one = judge(fake, tmp_path)
    assert set(grade(one, asked, said(asked))) == {(0, 0, 0), (2, 0, 0), (3, 0, 0)}
    assert (one.tally.graded, one.tally.malformed, one.tally.hole) == (3, 1, None)


def test_a_busy_judge_is_queried_again(fake: Fake, tmp_path: Path) -> None:
    fake.failures = [429, 503, 429]
    asked = items(2)
    one = judge(fake, tmp_path)
    assert len(grade(one, asked, said(asked))) == 2
    assert len(fake.asked) == 5
    assert one.tally.failed == 0


def test_a_request_that_fails_is_counted_and_the_others_continue(fake: Fake, tmp_path: Path) -> None:
    fake.failures = [200, 200, 400]
    asked = items(4)
    one = judge(fake, tmp_path)
    assert len(grade(one, asked, said(asked))) == 3
    assert (one.tally.failed, one.tally.missing) == (1, 1)
    assert "refuses the request: 400" in str(one.tally.hole)


def test_a_judge_that_is_too_slow_is_given_up(fake: Fake, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    fake.reply = lambda body: time.sleep(0.4) or verdict("[[5]]")
    asked = items(9)
    one = judge(fake, tmp_path, timeout=0.05)
    assert grade(one, asked, said(asked)) == {}
    assert one.tally.failed == 3
    assert "gives no usable answer after 1 try: timed out after 0.05 s" in str(one.tally.hole)
    fake.reply = None
    again = judge(fake, tmp_path)
    assert len(grade(again, asked, said(asked))) == 9


@pytest.mark.parametrize("reply", [b"<html>", {"text": "no chat"}])
def test_a_server_that_is_no_judge_is_a_hole(fake: Fake, tmp_path: Path, reply) -> None:
    fake.reply = lambda body: reply
    asked = items(5)
    one = judge(fake, tmp_path)
    assert grade(one, asked, said(asked)) == {}
    assert str(one.tally.hole).startswith("evaluate.judge.url:")


def test_no_judge_is_a_hole(tmp_path: Path) -> None:
    one = Judge(JudgeConfig(), tmp_path / "judgements.jsonl", "evaluate.judge")
    asked = items(2)
    assert grade(one, asked, said(asked)) == {}
    assert (one.tally.asked, one.tally.hole) == (2, "evaluate.judge.url: no judge is given")


def test_references_are_shown_where_there_are_any(fake: Fake, tmp_path: Path) -> None:
    asked = items(1, then=["and?"], reference=["gold one", "gold two"])
    grade(judge(fake, tmp_path), asked, said(asked))
    first, second = (ask["messages"][1]["content"] for ask in fake.asked)
    assert "gold one" in first
    assert "gold two" not in first
    assert "gold one" in second
    assert "gold two" in second


def test_braces_in_an_answer_are_unchanged(fake: Fake, tmp_path: Path) -> None:
    asked = items(1)
    grade(judge(fake, tmp_path), asked, [[[Answer([1], "{question} {x}", "stop")]]])
    assert "{question} {x}" in fake.asked[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("text", "grade"),
    [("Rating: [[5]]", 5), ("[[7.5]] and [[1]]", 7.5), ("[6]", 6), ("[[11]]", None), ("[[0]]", None), ("ten", None)],
)
def test_a_grade_is_from_one_to_ten(text: str, grade: float | None) -> None:
    assert rating(text) == grade


def test_prompts_of_a_file_replace_the_built_in_ones(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    lines = [{"name": name, "system_prompt": "s", "prompt_template": "{answer}"} for name in PROMPTS]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judge_prompts(JudgeConfig(prompts=str(file)), "evaluate.judge") == dict.fromkeys(PROMPTS, ("s", "{answer}"))
    file.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(DataError, match=r"has no prompt 'single-math-v1' with a system_prompt"):
        judge_prompts(JudgeConfig(prompts=str(file)), "evaluate.judge")
    with pytest.raises(DataError, match=r"evaluate.judge.prompts: .* there is no such file"):
        judge_prompts(JudgeConfig(prompts="no.jsonl"), "evaluate.judge")


@real("mt-bench")
def test_mt_benchs_judge_prompts_are_read_and_filled(fake: Fake, tmp_path: Path) -> None:
    asked = items(1, then=["and?"], reference=["gold one", "gold two"])
    prompts = str(DATA / "mt-bench" / "judge_prompts.jsonl")
    assert len(grade(judge(fake, tmp_path, prompts=prompts), asked, said(asked))) == 2
    for ask in fake.asked:
        assert "{" not in ask["messages"][1]["content"]
