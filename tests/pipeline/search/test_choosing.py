"""Turns, breeding, halving and the front: against slow references, and by what must hold."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.pipeline.search.candidates import candidate, candidates_of, lost_importance, proportional, trial_order
from prunus.pipeline.search.evolve import breed
from prunus.pipeline.search.halving import rank_correlation, ranking, regret, rung_sizes, settled, survivors
from prunus.pipeline.search.pareto import front
from prunus.pipeline.search.space import key_of, name_of
from tests.pipeline.search.making import shape_of, space_of

SCORES = {
    "layers": {"block_influence": [0.4, 0.1, 0.2, 0.3]},
    "neurons": [[float(i) for i in range(1, 49)]] * 4,
    "channels": [1.0] * 32,
    "heads": [[8.0, 1, 1, 1, 1, 1, 1, 2]] * 4,
}


def test_what_a_cut_loses_is_the_importance_outside_the_best() -> None:
    teacher = shape_of()
    assert lost_importance(SCORES, teacher, teacher) == 0
    assert lost_importance(SCORES, teacher, shape_of(num_hidden_layers=2)) == pytest.approx(
        0.3
    )  # the second and the third
    mlp = sum(range(1, 25)) / sum(range(1, 49))
    assert lost_importance(SCORES, teacher, shape_of(intermediate_size=24)) == pytest.approx(mlp)
    both = lost_importance(SCORES, teacher, shape_of(hidden_size=24, num_attention_heads=4))
    assert both == pytest.approx(8 / 32 + 4 / 16)


def test_every_depth_has_its_turn_and_the_proportional_shape_the_first() -> None:
    space = space_of("non-embedding <= 50%", within=0.2)
    shapes = space.all()
    depths = {shape.num_hidden_layers for shape in shapes}
    order = trial_order(space.teacher, shapes, SCORES)
    assert sorted(map(name_of, order)) == sorted(map(name_of, shapes))
    assert order[0] == proportional(space.teacher, shapes)
    first = order[1 : 1 + len(depths)]
    assert {shape.num_hidden_layers for shape in first} == depths
    for shape in first:  # of each depth the one that loses least, but for the proportional one
        alike = [s for s in order[1:] if s.num_hidden_layers == shape.num_hidden_layers]
        assert shape == min(alike, key=lambda s: lost_importance(SCORES, space.teacher, s))


def test_the_proportional_shape_is_cut_equally_on_all_axes() -> None:
    teacher = shape_of()
    even = shape_of(
        num_hidden_layers=2, hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2
    )
    others = [shape_of(num_hidden_layers=1), shape_of(hidden_size=8), shape_of(intermediate_size=8)]
    assert proportional(teacher, [*others, even]) == even


def test_ways_are_separate_candidates() -> None:
    teacher, shape = shape_of(), shape_of(num_hidden_layers=2, hidden_size=16)
    first, half = (candidate(teacher, shape, way) for way in ("depth_first", "halfway"))
    assert first is not None
    assert half is not None
    assert first.via == shape_of(num_hidden_layers=2)
    assert (half.via.num_hidden_layers, half.via.hidden_size, half.via.intermediate_size) == (3, 24, 48)
    names = {one.name for one in (first, half, candidate(teacher, shape)) if one}
    assert len(names) == 3
    assert candidate(teacher, shape_of(hidden_size=16), "depth_first") is None  # nothing of its depth goes
    assert candidate(teacher, shape_of(num_hidden_layers=2), "depth_first") is None  # nothing of its width goes
    assert [one.way for one in candidates_of(teacher, shape_of(hidden_size=16), ["depth_first"])] == ["once"]
    assert [one.way for one in candidates_of(teacher, shape, ["halfway", "once"])] == ["halfway", "once"]


def test_other_layers_are_separate_candidates() -> None:
    teacher, shape = shape_of(), shape_of(num_hidden_layers=2)
    found = candidates_of(teacher, shape, ["once"], [(0, 1), (0, 3)])
    assert [one.dropped for one in found] == [(), (0, 1), (0, 3)]
    assert [one.name.partition("-without-")[2] for one in found] == ["", "0-1", "0+3"]
    assert all(one.shape == shape for one in found)


def test_children_are_new_and_in_the_budget() -> None:
    space = space_of("non-embedding <= 50%", within=0.1, least=0.2, multiples={"intermediate_size": 2})
    parents = space.all()[:6]
    known = {key_of(shape) for shape in parents}
    children = breed(parents, 8, space, known, np.random.default_rng(0))
    assert len(children) == len({key_of(shape) for shape in children} - known) == 8
    assert all(space.fits(shape) for shape in children)
    again = breed(parents, 8, space, known, np.random.default_rng(0))
    assert [key_of(shape) for shape in again] == [key_of(shape) for shape in children]


def test_halving() -> None:
    losses = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5, "e": 9.0}
    assert ranking(losses) == ["d", "b", "c", "a", "e"]
    assert survivors(losses, 2) == ["d", "b", "c"]
    assert survivors({"a": 1.0}, 3) == ["a"]
    assert rung_sizes(12, 2, 3) == [12, 6, 3]
    assert rung_sizes(12, 2, 9) == [12, 6, 3, 2]
    assert rung_sizes(2, 3, 4) == [2]
    rungs = [{"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 2.0, "b": 1.0}, {"b": 1.0}]
    assert settled(rungs) == 1
    assert settled(rungs[1:]) == 0
    assert regret({"a": 0.0, "b": 1.0}, {"a": 5.0, "b": 2.0}) == 3.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
def test_the_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = ({str(i): float(pair[side]) for i, pair in enumerate(pairs)} for side in (0, 1))
    found = rank_correlation(first, second)
    if len(set(first.values())) == 1 or len(set(second.values())) == 1:
        assert found is None
    else:
        one, two = (pd.Series(losses).rank() for losses in (first, second))
        assert found == pytest.approx(one.corr(two))


@settings(deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1), st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_nothing_beats_those_on_the_front(points: dict[str, tuple[float, float]]) -> None:
    def beaten(one: tuple[float, float]) -> bool:
        return any(all(a <= b for a, b in zip(o, one, strict=True)) and o != one for o in points.values())

    best = {points[name] for name in front(points)}
    assert best == {point for point in points.values() if not beaten(point)}
    assert all(a <= b for a, b in itertools.pairwise(points[name][0] for name in front(points)))
