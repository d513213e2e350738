"""Whole conversations side by side."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.tokens import Tokens
from prunus.errors import DataError
from prunus.training.objectives import CrossEntropy, cross_entropy
from prunus.training.packed import Packed, best_fit
from tests.tiny import load, make_model

LENGTHS = np.array([7, 3, 12, 5, 9, 4, 8, 6])
ANSWERS = [(2, 4), (1, 3), (5, 12), (0, 5), (8, 9), (2, 3), (1, 8), (3, 6)]


def made() -> Tokens:
    ends = np.cumsum(LENGTHS)
    answers = np.array([[start + a, start + b] for start, (a, b) in zip(ends - LENGTHS, ANSWERS, strict=True)])
    ids = (np.arange(LENGTHS.sum()) * 7 % 290 + 3).astype(np.uint16)
    return Tokens(ids, ends, LENGTHS * 3, answers)


def packed(batch_size: int = 2, epochs: float = 1, pack: bool = True, **more: object) -> Packed:
    return Packed(made(), 16, batch_size, epochs, 0.5, 3, pack, **more)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
def test_bins_hold_everything_once_and_no_bin_overflows(sizes: list[int], capacity: int) -> None:
    bins = best_fit(sizes, capacity)
    assert sorted(thing for group in bins for thing in group) == list(range(len(sizes)))
    assert all(sum(sizes[thing] for thing in group) <= capacity for group in bins)
    if sum(sizes):
        assert len(bins) <= 1.7 * sum(sizes) / capacity + 1  # what any fit that opens no bin in vain keeps to


def test_an_item_is_packed_where_the_least_room_is_left() -> None:
    assert best_fit([7, 6, 4, 3], 10) == [[0, 3], [1, 2]]
    assert best_fit([5, 5, 5], 10) == [[0, 1], [2]]


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("portion", [1, 2, 4])
def test_the_loss_of_a_step_is_the_mean_over_the_assistants_tokens(tmp_path: Path, pack: bool, portion: int) -> None:
    model = load(make_model(tmp_path / "model"))
    items = packed(batch_size=4, pack=pack)
    nats, count = 0.0, 0
    for group in [items.groups[int(number)] for number in items.order[:4]]:
        for document in group:
            start = int(items.tokens.starts[document])
            ids = torch.from_numpy(items.tokens.ids[start : start + LENGTHS[document]].astype(np.int64))
            for place in range(max(1, ANSWERS[document][0]), ANSWERS[document][1]):
                with torch.no_grad():
                    longer, shorter = (cross_entropy(model, ids[None, : place + i]) * (place + i - 1) if place + i > 1
                                       else torch.zeros(()) for i in (1, 0))  # fmt: skip
                nats, count = nats + (longer - shorter).item(), count + 1
    objective, losses = CrossEntropy(model), []
    for first in range(0, 4, portion):
        batch = items.collate([items[i] for i in range(first, first + portion)])
        batch.pop("numbers")
        with torch.no_grad():
            losses.append(objective(**batch).item())
    assert np.mean(losses) == pytest.approx(nats / count, rel=1e-4)


def test_epochs_and_their_order() -> None:
    items = packed(epochs=2)
    assert len(items) == items.steps * 2 == 2 * len(items.groups)
    assert items.warmup_steps == items.steps // 2
    first = items.order[: len(items.groups)]
    assert sorted(first) == list(range(len(items.groups)))
    assert (packed(epochs=2).order == items.order).all()
    assert items.tokens_per_step * items.steps == pytest.approx(2 * LENGTHS.sum(), abs=items.steps)


def test_some_documents_alone() -> None:
    items = packed(batch_size=1, pack=False, documents=np.array([1, 5, 6]))
    assert sorted(group.tolist() for group in items.groups) == [[1], [5], [6]]
    with pytest.raises(DataError, match="batch_size: 4 is more than the 3 sequences"):
        packed(batch_size=4, pack=False, documents=np.array([1, 5, 6]))
