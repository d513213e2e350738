"""The figures of validation, against whole logits and answers of one prompt at a time."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunus.data.tokens import Tokens
from prunus.errors import DataError
from prunus.inference.sample import draws, sample
from prunus.models.pretrained import load_tokenizer
from prunus.validation.data import ValidationData
from prunus.validation.measure import figures
from tests.tiny import load, make_model
from tests.validation.making import TEMPLATE, options, write_questions

LENGTH = 24


@pytest.fixture(scope="module")
def models(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel]:
    student = make_model(tmp_path_factory.mktemp("student") / "model", seed=1, hidden_size=16, num_hidden_layers=2)
    return load(student), load(teacher)


@pytest.fixture(scope="module")
def tokenizer(teacher: Path) -> PreTrainedTokenizerBase:
    found = load_tokenizer(teacher)
    found.chat_template = TEMPLATE
    return found


def stream() -> Tokens:
    draw = np.random.default_rng(0)
    ends = np.cumsum([40, 4, 70, 11, 9, 130])
    return Tokens(draw.integers(2, 300, ends[-1]).astype(np.uint16), ends, np.full(6, 50), opening=(1,))


def data(tokenizer: PreTrainedTokenizerBase, folder: Path, context: int = 128, **changes: object) -> ValidationData:
    config = options(write_questions(folder / "questions.jsonl"), **changes)
    return ValidationData.read(config, stream(), config.tasks, tokenizer, LENGTH, context)


@torch.no_grad()
def write(model: PreTrainedModel, ids: list[int], count: int, uniform: torch.Tensor | None = None) -> list[int]:
    """An answer token by token, without a cache."""
    written: list[int] = []
    for i in range(count):
        logits = model(input_ids=torch.tensor([ids + written]), use_cache=False).logits[0, -1].float()
        drawn = None if uniform is None else sample(logits[None], uniform[i : i + 1], 1.0, 1.0)
        written.append(int(logits.argmax()) if drawn is None else int(drawn))
        if written[-1] == 1:
            break
    return written


def repetition(answers: list[list[int]]) -> float:
    repeated = total = 0
    for ids in answers:
        seen: list[tuple[int, ...]] = []
        for i in range(len(ids) - 3):
            repeated += tuple(ids[i : i + 4]) in seen
            seen.append(tuple(ids[i : i + 4]))
        total += len(seen)
    return repeated / total


@pytest.mark.parametrize("batch_size", [1, 4])
def test_figures_equal_those_of_one_prompt_and_window_at_a_time(
    models: tuple[PreTrainedModel, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, batch_size: int
) -> None:
    student, teacher = models
    config, given = options(), data(tokenizer, tmp_path)
    found = figures(student, teacher, given, config, tokenizer, batch_size)

    nll = kl = agreed = count = 0.0
    for window in given.windows:
        with torch.no_grad():
            ours, theirs = (
                model(input_ids=torch.from_numpy(window.ids.astype(np.int64))[None]).logits[0].double().log_softmax(-1)
                for model in (student, teacher)
            )
        for at in range(window.context, len(window.ids)):
            nll -= float(ours[at - 1, int(window.ids[at])])
            kl += float((theirs[at - 1].exp() * (theirs[at - 1] - ours[at - 1])).sum())
            agreed += float(theirs[at - 1].argmax() == ours[at - 1].argmax())
            count += 1
    assert 150 <= sum(len(window.ids) for window in given.windows) < 150 + LENGTH
    assert (found["nll"], found["kl"]) == (pytest.approx(nll / count, rel=1e-4), pytest.approx(kl / count, rel=1e-4))
    assert found["agreement"] == pytest.approx(agreed / count)

    answers = [write(student, prompt.ids, 9) for prompt in given.openings]
    assert len(answers) == 3
    assert found["answers"] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    assert found["repetition"] == pytest.approx(repetition(answers))
    assert found["cut_off"] == pytest.approx(sum(ids[-1] != 1 for ids in answers) / 3)

    def right(ids: list[int]) -> bool:
        return not re.search(r"\be\b", tokenizer.decode(ids, skip_special_tokens=True), re.IGNORECASE)

    greedy = [right(write(student, question.greedy.ids, 9)) for question in given.questions["plain"]]
    drawn = [
        [right(write(student, one.ids, 9, draws(0, [one.number], 9)[0])) for one in question.sampled]
        for question in given.questions["plain"]
    ]
    scores = found["tasks"]["plain"]
    assert scores["pass@1"] == scores["reward"] == pytest.approx(np.mean(greedy))
    for k in (1, 3):
        chosen = [np.mean([any(one) for one in combinations(several, k)]) for several in drawn]
        assert scores[f"sampled pass@{k}"] == pytest.approx(np.mean(chosen))


def test_only_what_is_wanted_is_measured(
    models: tuple[PreTrainedModel, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    student, _ = models
    text = options(prompt_count=0)
    found = figures(student, None, ValidationData.read(text, stream(), {}, tokenizer, LENGTH, 128), text, tokenizer, 4)
    assert list(found) == ["nll"]
    config = options(write_questions(tmp_path / "questions.jsonl"), max_tokens=0, prompt_count=0, samples=0)
    given = ValidationData.read(config, stream(), config.tasks, tokenizer, LENGTH, 128)
    found = figures(student, None, given, config, tokenizer, 4)
    assert list(found) == ["tasks"]
    assert list(found["tasks"]["plain"]) == ["reward", "pass@1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 7}, r"validation.tasks.plain: .* has 6 conversations, expected at least 7"),
        ({"prompt_tokens": 65}, r"validation.prompt_tokens: no held-out document is longer than 2 x 65 tokens"),
        ({"max_new_tokens": 125}, r"row 1: .* tokens leave no room for an answer; allowed: 3"),
    ],
)
def test_data_that_cannot_be_measured_on_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        data(tokenizer, tmp_path, **changes)
