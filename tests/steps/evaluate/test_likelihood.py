"""Likelihoods with shared contexts, against one full forward pass in float64 for each request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from prunus.steps.evaluate import likelihood
from prunus.steps.evaluate.likelihood import Request, likelihoods
from tests.families import DISTINCT, make_teacher

MAX_LENGTH = 60


def requests(seed: int) -> list[Request]:
    """Contexts of one token to too long, some with a long common start, with one to seven continuations each."""
    draw = np.random.default_rng(seed)

    def ids(count: int) -> list[int]:
        return draw.integers(3, 60, count).tolist()

    start = ids(likelihood._START + 3)
    contexts = [ids(1), ids(9), ids(30), ids(MAX_LENGTH + 9), *([*start, *ids(int(n))] for n in (1, 2, 5, 9))]
    found = [(context, ids(int(draw.integers(1, 6)))) for context in contexts for _ in range(int(draw.integers(1, 8)))]
    return [found[i] for i in draw.permutation(len(found))]


def reference(model: PreTrainedModel, request: Request) -> tuple[float, bool]:
    """Log-probability of the continuation, and whether it is greedy: one sequence, no cache."""
    context, continuation = request
    ids = (context + continuation)[-(MAX_LENGTH + 1) :]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0, -len(continuation) :].double()
    targets = torch.tensor(continuation)
    values = logits.log_softmax(dim=1).gather(1, targets[:, None])
    return float(values.sum()), bool((logits.argmax(dim=1) == targets).all())


def test_letters_after_shared_examples_cost_a_pass_of_the_examples_and_one_of_the_questions(
    tmp_path: Path, monkeypatch
) -> None:
    """As in MMLU: three questions with four letters each, in batches of three sequences."""
    model = AutoModelForCausalLM.from_pretrained(make_teacher(tmp_path / "model", "llama")).eval()
    given = [([*range(3, 43), 50 + i, 9], [letter]) for i in range(3) for letter in (5, 6, 7, 8)]
    lengths, forward = [], type(model).forward

    def counted(self: PreTrainedModel, *arguments: object, **options: torch.Tensor) -> object:
        lengths.append(tuple(options["input_ids"].shape))
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(model), "forward", counted)
    found = dict(likelihoods(model, given, rows=3, max_length=MAX_LENGTH))
    assert lengths == [(1, 40), (3, 2)]
    for number, request in enumerate(given):
        assert found[number].value == pytest.approx(reference(model, request)[0], rel=1e-4)


@pytest.mark.parametrize("model_type", DISTINCT)
def test_equals_one_pass_per_request(model_type: str, tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", model_type)
    given = requests(seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = dict(likelihoods(model, given, rows=4, max_length=MAX_LENGTH))
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager").eval()
    assert sorted(found) == list(range(len(given)))
    for number, request in enumerate(given):
        value, greedy = reference(exact, request)
        assert found[number].value == pytest.approx(value, rel=1e-4, abs=1e-4), request
        assert found[number].greedy == greedy
