"""Models with skipped layers, and the greedy order in which layers are removed."""

import copy
from pathlib import Path

import pytest
import torch

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.steps.score.removal import block_removals, greedy_removal, lm_loss, logit_errors, skip_layers
from tests.tiny import load

IDS = [torch.arange(3, 27).reshape(2, 12), torch.arange(40, 52)[None]]


@torch.no_grad()
def test_skipping_layers_equals_deleting_them(teacher: Path) -> None:
    model = load(teacher)
    shorter = copy.deepcopy(model)
    del shorter.model.layers[2], shorter.model.layers[0]
    before = model(IDS[0], use_cache=False).logits
    with skip_layers(model, LLAMA, frozenset({0, 2})):
        torch.testing.assert_close(model(IDS[0], use_cache=False).logits, shorter(IDS[0], use_cache=False).logits)
    assert torch.equal(model(IDS[0], use_cache=False).logits, before)


def test_layers_are_restored_after_an_error(teacher: Path) -> None:
    model = load(teacher)
    with pytest.raises(KeyError), skip_layers(model, LLAMA, frozenset({1})):
        raise KeyError
    assert "forward" not in vars(model.model.layers[1])


@torch.no_grad()
def test_the_loss_is_the_mean_over_sequences(teacher: Path) -> None:
    model = load(teacher)
    total = lm_loss(model, IDS)
    each = [float(model(input_ids=row[None], labels=row[None]).loss) for ids in IDS for row in ids]
    assert total.tolist() == pytest.approx([sum(each), 3])


@torch.no_grad()
def test_errors_of_logits_are_summed_over_batches(teacher: Path) -> None:
    model = load(teacher)
    errors, sizes = logit_errors(model, LLAMA, frozenset({1}), IDS)
    shorter = copy.deepcopy(model)
    del shorter.model.layers[1]
    logits = [[m(ids, use_cache=False).logits.double() for ids in IDS] for m in (model, shorter)]
    assert float(sizes) == pytest.approx(sum(float(z.square().sum()) for z in logits[0]))
    assert float(errors) == pytest.approx(sum(float((a - b).square().sum()) for a, b in zip(*logits, strict=True)))


def test_block_removals_and_the_greedy_order() -> None:
    assert block_removals(lambda removed: float(sum(removed)), 5, 3) == [0 + 1 + 2, 1 + 2 + 3, 2 + 3 + 4]
    # 1 and 2 can replace each other: removing either costs little, removing both costs most
    worth = [5.0, 1.0, 1.5, 4.0]
    measure = lambda removed: sum(worth[i] for i in removed) + 10 * ({1, 2} <= removed)  # noqa: E731
    assert greedy_removal(measure, 4) == [1, 3, 0]
