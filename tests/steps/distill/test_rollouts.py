"""What the student generates during training, where it is cut, and which steps use it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from prunus.kd.losses import reverse_kl
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.steps.distill.rollouts import Repeating, repetition_ends, sample_continuations
from tests.tiny import load, make_model

IDS = torch.arange(2 * 20).reshape(2, 20) % 300


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student and its teacher, in float64."""
    teacher = load(make_model(tmp_path / "teacher")).double().requires_grad_(False)
    return load(make_model(tmp_path / "student", seed=1, hidden_size=16, num_hidden_layers=2)).double(), teacher


def options(**changes: object) -> DistillConfig:
    return DistillConfig.model_validate({"tokens": 0, "states": "none", "data": "student", **changes})


def slow_end(ids: list[int]) -> int:
    """As `repetition_ends`, prefix by prefix."""
    for end in range(1, len(ids) + 1):
        for period in range(1, 33):
            needed = max(2 * period, 12)
            if end >= period + needed and ids[end - needed : end] == ids[end - needed - period : end - period]:
                return end
    return len(ids) + 1


def test_repetition_is_found_where_a_slow_search_finds_it() -> None:
    draw = np.random.default_rng(0)
    rows = []
    for period in (1, 2, 5, 6, 7, 31, 32, 33):
        for rounds in (2, 3, 14):
            cycle = draw.integers(0, 300, period)
            row = np.concatenate([draw.integers(0, 300, draw.integers(0, 20)), np.tile(cycle, rounds)])[:110]
            rows.append(np.concatenate([row, draw.integers(0, 300, 110 - len(row))]))
    rows += [draw.integers(0, values, 110) for values in (1, 2, 3, 300)]
    found = repetition_ends(torch.tensor(np.array(rows)))
    expected = [slow_end(row.tolist()) for row in rows]
    assert found.tolist() == expected
    assert 5 < sum(end <= 110 for end in expected) < len(rows)  # both occur


@pytest.mark.parametrize("length", [1, 2, 12, 13])
def test_short_sequences(length: int) -> None:
    assert (
        repetition_ends(torch.zeros(3, length, dtype=torch.long)).tolist() == [13 if length == 13 else length + 1] * 3
    )


def test_generation_ends_when_every_continuation_repeats_itself(pair) -> None:
    """A head that always predicts the last token again; but one sequence never does."""
    student, _ = pair
    prompts = torch.full((2, 6), 7)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    torch.manual_seed(0)
    uniform = sample_continuations(student, prompts, 6, 40, cut_repetition=True)
    assert uniform.ids.shape == (2, 46)  # random tokens
    assert uniform.figures["repeating"] == 0
    stops = Repeating(6)
    same = torch.full((2, 6 + 13), 7)
    assert stops(same, torch.empty(0)).tolist() == [True, True]
    assert stops(same[:, :-1], torch.empty(0)).tolist() == [False, False]  # the prompt does not count
    same[1, 8] = 3
    assert stops(same, torch.empty(0)).tolist() == [True, False]


def test_tokens_after_a_cut_are_not_learnt(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = pair
    ids = torch.cat([IDS[:, :6], torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(0))], dim=1)
    ids[1, 10:] = 5  # the cut is after 13 equal tokens
    monkeypatch.setattr(student, "generate", lambda *_, **__: ids)
    found = sample_continuations(student, IDS, 6, 30, cut_repetition=True)
    assert (found.weights > 0).sum(dim=1).tolist() == [30, 10 - 6 + 13]
    assert found.weights.mean().item() == pytest.approx(1)
    assert found.weights[1, 5 : 5 + 17].min() == found.weights.max()
    assert {name: figure.item() for name, figure in found.figures.items()} == {
        "rollout_tokens": 23.5, "repeating": 0.5
    }  # fmt: skip
    config = options(prompt_tokens=6, loss="reverse_kl", rollouts={"cut_repetition": True})
    objective = make_objective(config, student, teacher, None)
    actual = objective(IDS)
    with torch.no_grad():
        per_token = reverse_kl(student(ids).logits, teacher(ids).logits)
    expected = torch.cat([per_token[0, 5:-1], per_token[1, 5 : 5 + 17]]).mean()
    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert list(objective.figures) == ["reverse_kl", "rollout_tokens", "repeating"]


def test_an_on_policy_student_is_graded_on_what_it_sampled(pair) -> None:
    student, teacher = pair
    torch.manual_seed(0)
    found = sample_continuations(student, IDS, 6, 14)
    sequences, weights = found.ids, found.weights
    assert torch.equal(sequences[:, :6], IDS[:, :6])
    assert sequences.shape == IDS.shape
    assert not torch.equal(sequences, IDS)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights > 0).sum(dim=1).tolist() == [14, 14]
    torch.manual_seed(0)
    config = options(prompt_tokens=6, loss="reverse_kl")
    positions = torch.arange(20).remainder(7).repeat(2, 1)  # of packed documents: a continuation has its own
    actual = make_objective(config, student, teacher, None)(IDS, position_ids=positions)
    with torch.no_grad():
        per_token = reverse_kl(student(sequences).logits, teacher(sequences).logits)
    assert actual.item() == pytest.approx(per_token[:, 5:-1].mean().item(), rel=1e-6)


def test_continuations_are_sampled_from_the_students_distribution(pair) -> None:
    student, _ = pair
    torch.manual_seed(0)
    many = IDS[:1].repeat(4000, 1)[:, :4]
    sequences = sample_continuations(student, many, 3, 1).ids
    with torch.no_grad():
        expected = student(many[:1, :3]).logits[0, -1].softmax(-1)
    frequencies = torch.bincount(sequences[:, 3], minlength=300) / 4000
    assert (frequencies - expected).abs().max().item() < 0.03


def test_lengths_grow_from_short_to_full() -> None:
    def lengths(**rollouts: object) -> list[int]:
        found = options(rollouts=rollouts).rollouts
        return [found.new_tokens(100, progress) for progress in (0.0, 0.25, 0.5, 1.0)]

    assert lengths() == [100] * 4
    assert lengths(first_tokens=20) == [20, 40, 60, 100]
    assert lengths(first_tokens=500) == [100] * 4


@pytest.mark.parametrize(
    ("rollouts", "expected"),
    [
        ({}, "SSSSSSSSSS"),
        ({"share": 0.5}, "CSCSCSCSCS"),
        ({"share": 0.3}, "CCCSCCSCCS"),
        ({"share": 0.1}, "CCCCCCCCCS"),
        ({"start": 0.4}, "CCCCSSSSSS"),
        ({"start": 0.4, "share": 0.5}, "CCCCCSCSCS"),
    ],
)
def test_steps_on_the_students_text_are_spread_evenly(rollouts: dict, expected: str) -> None:
    config = options(
        tokens=10 * 64, batch_size=2, sequence_length=32, prompt_tokens=8, warmup_steps=1, rollouts=rollouts
    )
    found = "".join("S" if config.samples_at(step / config.steps) else "C" for step in range(10))
    assert found == expected
