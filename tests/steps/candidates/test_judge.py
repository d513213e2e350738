"""A judge behind a real address grades what a model writes: failures are survived, verdicts kept, answers left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunus import client
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.judged import Judged
from prunus.data.tokens import Tokens
from prunus.errors import DataError, HubError
from prunus.judging import judge as room
from prunus.judging.config import JudgeConfig
from prunus.steps.candidates.config import WriteConfig
from prunus.steps.candidates.rewards import Question, by_judge
from tests.fake import Fake, serving
from tests.steps.align.making import QUIET, rows, write
from tests.steps.candidates.test_step import ask


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(room.KEY, "secret")
    monkeypatch.setattr(client, "PAUSE", 0.0)
    with serving() as made:
        made.reply = grade
        yield made


def grade(body: dict[str, Any]) -> dict[str, Any]:
    """More for longer answers."""
    shown = body["messages"][1]["content"]
    answer = shown.partition("[Answer]\n")[2].removesuffix("\n[End of the answer]")
    return {"message": {"role": "assistant", "content": f"Rating: [[{1 + len(answer) % 10}]]"}}


def graded(fake: Fake, model: Path, file: Path, out: Path, **options: Any) -> list[dict]:
    judge = {"url": fake.url, "model": "grader", "concurrency": 1, "timeout": 5}
    return ask(model, file, out, reward="judge", judge=judge, **options)


def test_answers_have_the_grades_of_a_judge(fake: Fake, teacher: Path, tmp_path: Path) -> None:
    """Rows need no check; equal answers to a question are asked about once."""
    given = rows(4, "answers")
    lines = graded(fake, teacher, write(tmp_path / "x.jsonl", given), tmp_path / "out")
    assert [line["reward"] for line in lines] == [1 + len(line["answer"]) % 10 for line in lines]
    assert Judged.open(tmp_path / "out").rewards.tolist() == [line["reward"] for line in lines]
    assert len(fake.asked) == len({(line["prompt"], line["answer"]) for line in lines})
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer secret"}
    assert all(any(row["prompt"] in one["messages"][1]["content"] for row in given) for one in fake.asked)
    kept = [json.loads(line) for line in (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()]
    assert len(kept) == len(fake.asked)
    assert all(line["verdict"].startswith("Rating") for line in kept)


def test_the_judge_sees_speakers_and_functions(fake: Fake, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "open_door", "parameters": {"type": "object", "properties": {}}}}
    turns = [{"role": role, "content": text} for role, text in (("system", "Be a plum."), ("user", "Who?"))]
    row = {"messages": [*turns, {"role": "assistant", "content": "A plum."}], "tools": [tool]}
    (read,) = conversations(ChatSource(path=str(write(tmp_path / "x.jsonl", [row]))), "data.chat.0")
    judge = JudgeConfig(url=fake.url, model="grader")
    assert by_judge([(Question(read, "", []), "Nobody.")], judge, tmp_path, QUIET).tolist() == [8.0]
    shown = fake.asked[0]["messages"][1]["content"]
    assert "### System:\nBe a plum.\n\n### User:\nWho?" in shown
    assert "open_door" in shown
    assert "A plum." not in shown


def test_answers_without_a_grade_are_left_out(fake: Fake, teacher: Path, tmp_path: Path) -> None:
    """One request is refused, and each verdict on a question has no grade: the rest is learnt from."""
    given = rows(4, "answers")
    fake.failures = [400]
    mute = given[2]["prompt"]
    silent = {"message": {"role": "assistant", "content": "Splendid!"}}
    fake.reply = lambda body: silent if mute in body["messages"][1]["content"] else grade(body)
    lines = graded(fake, teacher, write(tmp_path / "x.jsonl", given), tmp_path / "out")
    judged, tokens = Judged.open(tmp_path / "out"), Tokens.open(tmp_path / "out")
    assert not any(mute in line["prompt"] for line in lines)
    assert 12 - 3 - 3 <= len(lines) < 12 - 3 + 1
    assert len(lines) == len(judged.rewards) == len(tokens.ends)
    assert set(judged.groups.tolist()) <= {0, 1, 3}


def test_a_judge_that_falls_silent_is_waited_for(
    fake: Fake, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is kept, so that the next run asks for the rest alone."""
    file = write(tmp_path / "x.jsonl", rows(4, "answers"))
    whole = graded(fake, teacher, file, tmp_path / "whole")
    count = len(fake.asked)
    monkeypatch.setattr(client, "TRIES", 1)
    fake.failures = [503] * 50 + [200] * 4
    with pytest.raises(HubError, match=r"align.write.judge.url: .*4 of 12 answers have a grade.*Run it again"):
        graded(fake, teacher, file, tmp_path / "out")
    fake.failures = []
    fake.asked.clear()
    assert graded(fake, teacher, file, tmp_path / "out") == whole
    # a request of the first run, which has ended, may arrive late and be counted twice
    assert len({json.dumps(asked["messages"]) for asked in fake.asked}) == count - 4
    fake.reply = lambda body: {"message": {"content": "fine"}}
    with pytest.raises(DataError, match=r"0 of 12 answers have a grade"):
        graded(fake, teacher, file, tmp_path / "mute")


def test_what_a_judge_is_sent() -> None:
    with pytest.raises(ValueError, match=r"judge.url: missing; reward: judge needs a server"):
        WriteConfig(answers=2, reward="judge")
    with pytest.raises(ValueError, match=r"judge: not an option with reward: check"):
        WriteConfig(answers=2, judge={"url": "http://x", "model": "y"})
