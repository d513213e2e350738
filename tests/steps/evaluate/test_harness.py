"""Against lm-evaluation-harness itself, on the same model and the same questions, where it is installed."""

import json
from pathlib import Path

import numpy as np
import pytest

from prunus.config import parse
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.models.pretrained import load_tokenizer
from prunus.steps.evaluate.check import check_tasks
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.summary import summarise
from tests.tiny import WORDS, load

pytest.importorskip("lm_eval")

from prunus.steps.evaluate.harness import Harness  # it loads what is not there otherwise


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> dict[str, str]:
    """Local copies of tasks, with questions of our own."""
    root, draw = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)

    def text(count: int) -> str:
        return " ".join(draw.choice(WORDS, count))

    rows = {
        "piqa": [{"query": f"Question: {text(4)}?", "choices": [text(5), text(2)], "gold": 1} for _ in range(9)],
        "lambada_openai": [{"context": text(6), "continuation": str(draw.choice(WORDS))} for _ in range(9)],
        "gsm8k": [{"question": text(5), "answer": "so\n#### 4"} for _ in range(4)],
    }
    for name, of in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
    for part in ("test", "dev"):
        (root / "mmlu" / part).mkdir(parents=True)
        for subject in ("anatomy", "astronomy"):
            lines = [f"{text(4)},{text(1)},{text(1)},{text(1)},{text(1)},{i % 4}" for i in range(6)]
            (root / "mmlu" / part / f"{subject}_{part}.csv").write_text("\n".join(lines) + "\n")
    return {**{name: str(root / f"{name}.jsonl") for name in rows}, "mmlu": str(root / "mmlu")}


@pytest.fixture(scope="module")
def parts(teacher: Path):
    return load(teacher), load_tokenizer(teacher)


def ask(parts, out: Path, name: str, **options) -> list[dict]:
    config = EvaluateConfig(tasks={name: options})
    return Harness(*parts, 128, out, 4).run(name, config.all_tasks()[name], config, Console(quiet=True))


def log_likelihoods(parts, context: str, choices: list[str]) -> list[float]:
    """Of each choice behind its context, with nothing clever in it."""
    import torch

    model, tokenizer = parts
    found = []
    for choice in choices:
        ids = tokenizer(context + choice)["input_ids"]
        start = len(tokenizer(context)["input_ids"])
        with torch.no_grad():
            log = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(log[i - 1, ids[i]].item() for i in range(start, len(ids))))
    return found


def test_multiple_choice_is_scored_by_log_likelihood(parts, questions, tmp_path: Path) -> None:
    found = ask(parts, tmp_path, "piqa", data=questions["piqa"], num_fewshot=0)
    rows = [json.loads(line) for line in Path(questions["piqa"]).read_text().splitlines()]
    assert [row["id"] for row in found] == [f"prunus_piqa-{i}" for i in range(9)]
    for row, got in zip(rows, found, strict=True):
        scores = log_likelihoods(parts, f"{row['query']}\nAnswer:", [f" {choice}" for choice in row["choices"]])
        by_length = [score / len(choice) for score, choice in zip(scores, row["choices"], strict=True)]
        assert got["scores"]["acc"] == (float(np.argmax(scores) == row["gold"]), 1.0)
        assert got["scores"]["acc_norm"] == (float(np.argmax(by_length) == row["gold"]), 1.0)


def test_scores_are_those_that_the_harness_reports(parts, questions, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name in ("piqa", "lambada_openai"):
        rows = ask(parts, tmp_path, name, data=questions[name], num_fewshot=1)
        folder = tmp_path / "checkpoints" / f"harness-{name}"
        theirs = simple_evaluate(
            model=HFLM(pretrained=parts[0], tokenizer=parts[1], batch_size=1, max_length=128),
            tasks=[f"prunus_{name}"], num_fewshot=1, bootstrap_iters=0, random_seed=0, fewshot_random_seed=0,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        )["results"][f"prunus_{name}"]  # fmt: skip
        assert np.mean([row["scores"]["acc"][0] for row in rows]) == pytest.approx(theirs["acc,none"], abs=1e-9)
        if "perplexity,none" in theirs:
            found = summarise(rows, [], EvaluateConfig(resamples=100))["metrics"]["perplexity"]["value"]
            assert found == pytest.approx(theirs["perplexity,none"], rel=1e-6)


def test_mmlu_keeps_its_subjects_apart(parts, questions, tmp_path: Path) -> None:
    found = ask(parts, tmp_path, "mmlu", data=questions["mmlu"], limit=3, num_fewshot=2)
    assert [row["group"] for row in found] == ["anatomy"] * 3 + ["astronomy"] * 3
    assert all(row["scores"].keys() == {"acc", "chance"} for row in found)
    assert {row["scores"]["chance"] for row in found} == {(0.25, 1.0)}


def test_answers_are_requested_and_kept(parts, questions, tmp_path: Path) -> None:
    found = ask(parts, tmp_path, "gsm8k", data=questions["gsm8k"], num_fewshot=0)
    assert len(found) == 4
    assert all(set(row["scores"]) == {"exact_match"} and isinstance(row["answer"], str) for row in found)


def test_stored_answers_are_not_requested_again(parts, questions, tmp_path: Path, monkeypatch) -> None:
    model, _ = parts
    first = ask(parts, tmp_path, "piqa", data=questions["piqa"], num_fewshot=0)
    monkeypatch.setattr(type(model), "forward", lambda *arguments, **options: pytest.fail("asked again"))
    assert ask(parts, tmp_path, "piqa", data=questions["piqa"], num_fewshot=0) == first


def test_a_killed_task_resumes_by_item(parts, questions, tmp_path: Path, monkeypatch) -> None:
    model, _ = parts
    forward, calls = type(model).forward, []

    def counted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(model), "forward", counted)
    options = {"data": questions["piqa"], "num_fewshot": 0}
    limit = -1
    whole = ask(parts, tmp_path / "whole", "piqa", **options)
    all_of_them, limit = len(calls), 3
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        ask(parts, tmp_path / "killed", "piqa", **options)
    calls.clear()
    limit = -1
    assert ask(parts, tmp_path / "killed", "piqa", **options) == whole
    assert 0 < len(calls) < all_of_them


def test_a_task_of_the_harness_is_known_by_name() -> None:
    check_tasks(EvaluateConfig(tasks=["openbookqa"]))
    with pytest.raises(RecipeError, match=r"unknown task 'openbokqa' \(did you mean `openbookqa`"):
        check_tasks(parse(EvaluateConfig, {"tasks": ["openbokqa"]}, "test"))
