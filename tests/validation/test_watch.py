"""Validation in training: it changes no weight, and its record survives a kill."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.main import main
from prunus.data.tokens import Tokens
from prunus.models.pretrained import load_tokenizer
from prunus.validation import watch
from prunus.validation.data import ValidationData
from prunus.validation.measure import figures
from tests.tiny import load, make_model
from tests.validation.making import OPTIONS, TEMPLATE, options, write_questions

STEPS, BATCH, LENGTH = 7, 4, 16


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("student") / "model", seed=1, hidden_size=16, num_hidden_layers=2)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "questions.jsonl")


def distil(student: Path, teacher: Path, corpus: Path, out: Path, *more: object) -> int:
    words = ["distill", student, "--teacher", teacher, "--corpus", corpus, "--out", out]
    words += ["--tokens", STEPS * BATCH * LENGTH, "--sequence-length", LENGTH, "--batch-size", BATCH]
    words += ["--warmup-steps", 1, "--states", "none", *more]
    return main([str(word) for word in words])


def validated(held_out: Path, questions: Path) -> list[object]:
    words: list[object] = ["--held-out", held_out]
    for name, value in OPTIONS.items():
        words += [f"--validation.{name.replace('_', '-')}", value]
    return [*words, "--tasks", f"plain={questions}"]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / watch.FILE).read_text().splitlines()]


def timeless(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


@pytest.fixture(scope="module")
def done(student: Path, teacher: Path, corpus: Path, held_out: Path, questions: Path, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    assert distil(student, teacher, corpus, out, *validated(held_out, questions)) == 0
    return out


def test_the_weights_are_those_of_a_training_without_it(
    done: Path, student: Path, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    assert distil(student, teacher, corpus, tmp_path / "out") == 0
    assert not (tmp_path / "out" / watch.FILE).exists()
    weights = [(folder / "model.safetensors").read_bytes() for folder in (done, tmp_path / "out")]
    assert weights[0] == weights[1]


def test_the_record_has_the_teacher_the_start_and_the_end(
    done: Path, student: Path, teacher: Path, questions: Path
) -> None:
    found = lines(done)
    assert [(line["model"], line["step"]) for line in found] == [
        ("teacher", 0), ("student", 0), ("student", 2), ("student", 5), ("student", 7),
    ]  # fmt: skip
    assert [line["tokens"] for line in found] == [line["step"] * BATCH * LENGTH for line in found]
    (held_out,) = done.parent.glob("data/held_out-*")
    config, tokenizer = options(questions), load_tokenizer(student)
    data = ValidationData.read(config, Tokens.open(held_out), config.tasks, tokenizer, LENGTH, 128)
    for line, model in zip((found[0], found[1], found[-1]), (teacher, student, done), strict=True):
        above = None if model == teacher else load(teacher)
        again = figures(load(model), above, data, config, tokenizer, 3)
        texts = again.pop("answers"), line.pop("answers")
        assert texts[0] == texts[1]
        assert {name: line[name] for name in again} == {
            name: value if name == "tasks" else pytest.approx(value, rel=1e-4) for name, value in again.items()
        }


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_a_training_killed_while_it_measures_ends_with_the_same_record(
    done: Path, student: Path, teacher: Path, corpus: Path, held_out: Path, questions: Path, tmp_path: Path, monkeypatch
) -> None:
    words = [*validated(held_out, questions), "--runtime.checkpoint-minutes", 0]
    measured = watch.figures

    def killed(*given: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return measured(*given)

    calls: list[int] = []
    monkeypatch.setattr(watch, "figures", killed)
    with pytest.raises(Killed):
        distil(student, teacher, corpus, tmp_path / "out", *words)
    assert distil(student, teacher, corpus, tmp_path / "out", *words) == 0
    assert len(calls) == 6  # what was measured before is kept: the killed one and the last
    assert timeless(lines(tmp_path / "out")) == timeless(lines(done))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (done / "model.safetensors").read_bytes()


def test_its_time_is_not_the_trainings(
    student: Path, teacher: Path, corpus: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            clock[0] += 1.0
            return clock[0]

    def slow(*_: Any) -> dict[str, Any]:
        clock[0] += 1e6
        return {}

    monkeypatch.setattr(watch, "figures", slow)
    monkeypatch.setattr(watch, "time", Time)
    monkeypatch.setattr("prunus.training.record.time", Time)
    out = tmp_path / "out"
    assert distil(student, teacher, corpus, out, "--held-out", held_out, "--validation.times", 3) == 0
    speeds = [json.loads(line)["tokens_per_second"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert min(speeds) > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--validation.times", 2], "--held-out and --validation.times: give both, or neither"),
        (["--held-out", "HELD_OUT"], "--held-out and --validation.times: give both, or neither"),
        (["--held-out", "HELD_OUT", "--validation.times", 2, "--tasks", "a=QUESTIONS"], "template"),
        (["--held-out", "HELD_OUT", "--validation.times", 2, "--tasks", "nosuch"], "--tasks nosuch: unknown skill"),
    ],
)
def test_validation_without_its_data_is_refused(
    teacher: Path, corpus: Path, held_out: Path, questions: Path, tmp_path: Path, words: list, message: str, capsys: Any
) -> None:
    """The teacher, here also the student, has no chat template."""
    words = [str(word).replace("HELD_OUT", str(held_out)).replace("QUESTIONS", str(questions)) for word in words]
    assert distil(teacher, teacher, corpus, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_a_measurement_in_one_line() -> None:
    found = {"nll": 4.5, "kl": 1.25, "repetition": 0.345, "tasks": {"plain": {"pass@1": 0.4, "sampled pass@4": 0.8}}}
    expected = "KL 1.250  ·  NLL 4.500  ·  repetition 34%  ·  plain pass@1 40%, sampled pass@4 80%"
    assert watch.summary(found) == expected
