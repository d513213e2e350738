from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunus.errors import ArtifactError
from prunus.models.families.lfm2 import FAMILY as LFM2
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.mixtral import FAMILY as MIXTRAL
from prunus.models.shape import Shape
from prunus.steps.prune.choose import (
    Keep,
    best,
    best_groups,
    best_heads,
    choose,
    choose_layers,
    layer_choices,
    partners,
    unranked_experts,
)
from prunus.steps.prune.config import PruneConfig
from tests.tiny import SMALL

SCORES = arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1))


@given(scores=SCORES, data=st.data())
def test_the_best_are_those_that_no_other_beats(scores: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    kept = best(scores, count)
    assert list(kept) == sorted(set(kept.tolist()))
    assert len(kept) == count
    dropped = sorted(set(range(len(scores))) - set(kept.tolist()))
    for out in dropped:
        for stays in kept:
            assert (scores[stays], -stays) > (scores[out], -out)


def test_heads_are_ranked_inside_their_group() -> None:
    scores = np.array([9, 8, 7, 1, 2, 3], dtype=float)  # two groups of three; the second would lose every open contest
    assert best_heads(scores, 2, np.array([0, 1]), 2).tolist() == [0, 1, 4, 5]
    assert best_heads(scores, 2, np.array([1]), 1).tolist() == [5]


def test_groups_are_ranked_by_all_their_heads() -> None:
    scores = np.array([5, 0, 3, 3.9, 1, 1], dtype=float)  # norms 5, 4.9, 1.4
    assert best_groups(scores, 3, 2).tolist() == [0, 1]
    assert best_groups(scores, 3, 1).tolist() == [0]


def cosines(influences: list[float]) -> np.ndarray:
    """Cosines between borders of a stream that turns by fixed angles."""
    angles = np.concatenate([[0], np.cumsum(np.arccos(1 - np.array(influences)))])
    return np.cos(angles[:, None] - angles[None, :])


def of_depth(layers: int) -> Shape:
    return Shape.from_config({**SMALL, "num_hidden_layers": layers}, LLAMA, "test")


def test_layers_are_dropped_as_a_block_or_singly() -> None:
    turns = cosines([0.5, 0.01, 0.4, 0.1, 0.1, 0.02])

    def kept(count: int, rule: Any, **options: Any) -> list[int]:
        return choose_layers({"cosines": turns, **options}, of_depth(6), count, PruneConfig(drop_layers=rule))

    assert kept(4, "single") == [0, 2, 3, 4]
    assert kept(4, "contiguous") == [0, 1, 2, 3]  # layers 4 and 5 together turn it least
    assert kept(5, "contiguous") == [0, 2, 3, 4, 5]
    assert kept(6, "contiguous") == [0, 1, 2, 3, 4, 5]
    assert kept(4, (0, 3)) == [1, 2, 4, 5]


def test_layers_are_ranked_by_the_loss_without_them() -> None:
    scores = {
        "layers.lm_loss.1": np.array([4.0, 1.0, 2.0, 3.0, 0.5]),
        "layers.lm_loss.2": np.array([5.0, 2.0, 1.0, 3.0]),
        "layers.logit_nmse.order": np.array([3, 0, 1, 2]),
    }

    def kept(criterion: str, rule: Any) -> list[int]:
        return choose_layers(scores, of_depth(5), 3, PruneConfig(drop_layers=rule, importance={"layers": criterion}))

    assert kept("lm_loss", "contiguous") == [0, 1, 4]
    assert kept("lm_loss", "single") == [0, 2, 3]
    assert kept("logit_nmse", "single") == [1, 2, 4]  # one after the other, in the greedy order
    importance = {"layers": "lm_loss"}
    assert layer_choices(scores, PruneConfig(importance=importance), 2, of_depth(5)) == [
        (2, 3),
        (1, 4),
        (1, 2),
        (3, 4),
        (0, 1),
    ]
    single = PruneConfig(drop_layers="single", importance=importance)
    assert layer_choices(scores, single, 2, of_depth(5)) == [(1, 4), (2, 3), (1, 2), (3, 4), (0, 1)]
    with pytest.raises(ArtifactError, match=r"contain no layers.accuracy.2; add 'accuracy' to `score.collect`"):
        kept("accuracy", "contiguous")


def test_a_layer_with_attention_is_always_kept() -> None:
    kinds = ["conv", "conv", "full_attention", "conv", "full_attention"]
    teacher = Shape.from_config({**SMALL, "num_hidden_layers": 5, "layer_types": kinds}, LFM2, "test")
    scores = {
        "cosines": cosines([0.5, 0.4, 0.1, 0.3, 0.01]),
        "layers.logit_nmse.order": np.array([4, 2, 1, 0]),
        "layers.lm_loss.4": np.array([9.0, 1.0]),
    }

    def kept(count: int, rule: Any, criterion: str = "block_influence", seed: int = 0) -> list[int]:
        config = PruneConfig(drop_layers=rule, importance={"layers": criterion}, seed=seed)
        return choose_layers(scores, teacher, count, config)

    assert kept(3, "single") == [0, 1, 2]  # without the rule, layers 2 and 4
    assert kept(3, "single", "logit_nmse") == [0, 2, 3]
    assert kept(2, "contiguous") == [0, 4]  # of the three blocks, the last has both
    assert kept(1, "contiguous", "lm_loss") == [4]
    for seed in range(8):
        for rule in ("single", "contiguous"):
            assert {2, 4} & set(kept(2, rule, "random", seed))
    assert teacher.droppable(3) == [(0, 1, 2), (1, 2, 3)]


def test_a_contiguous_block_is_the_best_of_all_blocks() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        values = draw.random((8, 8))
        kept = choose_layers({"cosines": values}, of_depth(7), 4, PruneConfig())
        dropped = sorted(set(range(7)) - set(kept))
        assert dropped == list(range(dropped[0], dropped[0] + 3))
        assert values[dropped[0], dropped[0] + 3] == max(values[i, i + 3] for i in range(5))


def test_chance_is_seeded() -> None:
    teacher = Shape.from_config(SMALL, LLAMA, "test")
    target = teacher.with_dimensions({"hidden_size": 16, "intermediate_size": 12})

    def keep(seed: int) -> list[int]:
        config = PruneConfig(hidden_size=16, importance="random", seed=seed)
        return choose({}, teacher, target, config, None).shared["hidden"].tolist()

    assert keep(1) == keep(1)
    assert keep(1) != keep(2)


@pytest.mark.parametrize("heads", [4, 8])
def test_every_layer_keeps_as_many_but_different_ones(heads: int) -> None:
    teacher = Shape.from_config(SMALL, LLAMA, "test")
    target = teacher.with_dimensions({"num_attention_heads": heads, "num_key_value_heads": 2, "intermediate_size": 7})
    if heads == 8:
        target = teacher
    keep = choose({}, teacher, target, PruneConfig(importance="random"), None)
    for axis, count in (("heads", target.num_attention_heads), ("mlp", target.intermediate_size)):
        assert {len(rows) for rows in keep.layered[axis]} == {count}
    if heads == 4:
        assert len({tuple(rows) for rows in keep.layered["mlp"]}) > 1


def test_pruned_heads_are_paired_from_the_border_outwards() -> None:
    scores = np.array([5, 9, 1, 7, 3, 2], dtype=float)  # one group: by rank heads 1, 3, 0 | 4, 5, 2
    assert partners(scores, 1, np.array([0]), 3).tolist() == [4, 2, 5]  # of heads 0, 1, 3
    assert partners(scores, 1, np.array([0]), 4).tolist() == [2, 1, 3, 5]  # of 0, 1, 3, 4; two have none
    assert partners(scores, 2, np.array([1]), 1).tolist() == [4]  # the second group: heads 3 | 4, 5


def test_kept_experts_that_no_token_reaches_are_counted() -> None:
    teacher = Shape.from_config({**SMALL, "num_hidden_layers": 4, "num_local_experts": 3}, MIXTRAL, "test")
    squares = np.ones((4, 3, 24))
    squares[0, 1] = squares[2, 0] = squares[2, 2] = squares[3] = 0
    keep = Keep([0, 1, 2], {}, {"experts": [np.array([0, 1]), np.arange(3), np.array([1, 2]), np.arange(3)]})
    assert unranked_experts(keep, {"neurons.squares": squares}, teacher) == 2
    assert unranked_experts(keep, {}, teacher) == 0
