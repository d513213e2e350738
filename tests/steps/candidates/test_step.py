"""What a model writes to be judged: every answer once, with its reward, and none is asked for twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.data.config import ChatSource
from prunus.data.judged import Judged
from prunus.data.template import PLAIN
from prunus.data.tokens import Tokens
from prunus.errors import DataError, ModelError
from prunus.inference import local
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.candidates.config import CandidatesConfig, WriteConfig
from prunus.steps.candidates.step import Inputs, run
from tests.steps.align.making import QUIET, align, read, rows, write

CHECK = {"instruction_id_list": ["keywords:existence", "punctuation:no_comma"], "kwargs": [{"keywords": ["plum"]}, {}]}


def ask(
    model: Path, file: Path, out: Path, portion: int = 4, reward_model: Path | None = None, **options: Any
) -> list[dict]:
    out.mkdir(parents=True, exist_ok=True)
    beside = options.pop("beside", False)
    config = CandidatesConfig(
        write=WriteConfig(**{"answers": 3, "max_new_tokens": 8, **options}), template=PLAIN, sequence_length=64, seed=5,
        beside=beside,
    )  # fmt: skip
    inputs = Inputs(model, (ChatSource(path=str(file)),), reward_model)
    run(config, inputs, out, Runtime(device_batch_size=portion), QUIET)
    return [json.loads(line) for line in (out / "candidates.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = [{**row, "check": CHECK} for row in rows(6, "answers")]
    return write(tmp_path_factory.mktemp("rows") / "x.jsonl", given)


def test_answers_with_their_rewards(teacher: Path, checked: Path, tmp_path: Path) -> None:
    lines = ask(teacher, checked, tmp_path / "out")
    tokens, judged = Tokens.open(tmp_path / "out"), Judged.open(tmp_path / "out")
    assert judged.groups.tolist() == [i for i in range(6) for _ in range(3)]
    assert tokens.answers is not None
    tokenizer = load_tokenizer(teacher)
    for line, reward, start, (first, end) in zip(
        lines, judged.rewards, tokens.starts.tolist(), tokens.answers.tolist(), strict=True
    ):
        wanted = (("plum" in line["answer"].lower()) + ("," not in line["answer"])) / 2
        assert line["reward"] == reward == wanted
        assert tokenizer.decode(tokens.ids[start:first]) == line["prompt"]
        assert tokenizer.decode(tokens.ids[first:end], skip_special_tokens=True) == line["answer"]
    for best, worst in judged.pairs():
        assert judged.groups[best] == judged.groups[worst]
        assert judged.rewards[best] > judged.rewards[worst]
    assert all(judged.rewards[best] == max(judged.rewards[3 * i : 3 * i + 3]) for i, best in enumerate(judged.best()))


def test_portions_and_kills_do_not_matter(teacher: Path, checked: Path, tmp_path: Path, monkeypatch) -> None:
    whole = ask(teacher, checked, tmp_path / "whole")
    assert ask(teacher, checked, tmp_path / "other", portion=7) == whole
    answers, seen = local.finished, []

    def dying(*rest: Any) -> Any:
        if len(seen) == 6:
            raise KeyboardInterrupt
        seen.append(rest)
        return answers(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(local, "finished", dying)
        with pytest.raises(KeyboardInterrupt):
            ask(teacher, checked, tmp_path / "killed")
    monkeypatch.setattr(local, "finished", lambda *rest: seen.append(rest) or answers(*rest))
    assert ask(teacher, checked, tmp_path / "killed") == whole
    assert len(seen) == 18


def test_answers_of_the_data_are_paired_with_sampled_ones(teacher: Path, checked: Path, tmp_path: Path) -> None:
    lines = ask(teacher, checked, tmp_path / "out", beside=True, answers=2)
    given = [json.loads(line)["completion"] for line in checked.read_text().splitlines()]
    assert [line["answer"].strip() for line in lines[::4]] == given
    assert [line["finish"] == "given" for line in lines] == [True, False] * 12
    judged = Judged.open(tmp_path / "out")
    assert judged.pairs().tolist() == [[2 * i, 2 * i + 1] for i in range(12)]
    tokens = Tokens.open(tmp_path / "out")
    ends = [int(tokens.ids[end - 1]) for end in tokens.ends[::2]]
    assert set(ends) == {load_tokenizer(teacher).eos_token_id}


def test_a_reward_model_judges(teacher: Path, checked: Path, tmp_path: Path) -> None:
    pairs = read(teacher, write(tmp_path / "p.jsonl", rows(32, "pairs")), tmp_path / "pairs", wanted="pairs")
    align(teacher, pairs, tmp_path / "judge", method="reward", learning_rate=3e-3, epochs=2)
    lines = ask(teacher, checked, tmp_path / "out", reward_model=tmp_path / "judge")
    rewards = [line["reward"] for line in lines]
    assert len(set(rewards)) > 6
    one = ask(teacher, checked, tmp_path / "one", portion=1, reward_model=tmp_path / "judge")
    assert [line["reward"] for line in one] == pytest.approx(rewards, abs=1e-4)
    with pytest.raises(ModelError, match="is not a reward model|cannot be a reward model"):
        ask(teacher, checked, tmp_path / "wrong", reward_model=teacher)


def test_prompts_that_cannot_be_answered_are_refused(teacher: Path, tmp_path: Path) -> None:
    given = rows(3, "answers")
    with pytest.raises(DataError, match="row 1: check is missing"):
        ask(teacher, write(tmp_path / "a.jsonl", given), tmp_path / "out")
    given[1]["check"] = {"colour": "red"}
    given[0]["check"] = CHECK
    given[2]["check"] = CHECK
    with pytest.raises(DataError, match="row 2: its check has colour; expected: instruction_id_list"):
        ask(teacher, write(tmp_path / "b.jsonl", given), tmp_path / "out")
    long = [{"prompt": "plum " * 60, "completion": "x", "check": CHECK}]
    with pytest.raises(DataError, match="no prompt left: 1 are longer than the 56 tokens"):
        ask(teacher, write(tmp_path / "c.jsonl", long), tmp_path / "out")
