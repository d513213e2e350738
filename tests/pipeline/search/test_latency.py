"""Latency from a table: right where it is linear, and never less for more."""

import pytest

from prunus.config import parse
from prunus.errors import RecipeError
from prunus.models.folder import ModelFolder
from prunus.pipeline.search.config import Limit
from prunus.pipeline.search.latency import _widths, check_latency, interpolated, latency_of
from prunus.runtime import Runtime
from tests.pipeline.search.making import shape_of


def seconds(shape) -> float:
    """A machine that reads a parameter in a nanosecond, and starts in a microsecond."""
    return 1e-6 + 1e-9 * (shape.non_embedding_parameters + shape.vocab_size * shape.hidden_size)


def table_of(teacher) -> list[dict[str, float]]:
    rows = []
    for width in _widths(teacher):
        for layers in (2, 6):
            shape = width.with_dimensions({"num_hidden_layers": layers})
            rows.append({"layers": layers, "per_layer": shape.non_embedding_parameters / layers,
                         "embedding": shape.vocab_size * shape.hidden_size, "seconds": seconds(shape)})  # fmt: skip
    return rows


def test_what_lies_between_the_timed_shapes_is_interpolated() -> None:
    teacher = shape_of(num_hidden_layers=8)
    table = table_of(teacher)
    assert len(table) == 8
    for changes in ({}, {"num_hidden_layers": 3}, {"hidden_size": 24, "intermediate_size": 40}, {"hidden_size": 16}):
        shape = shape_of(**{"num_hidden_layers": 8, **changes})
        assert interpolated(table, shape) == pytest.approx(seconds(shape), rel=0.03)


def test_noise_makes_no_larger_shape_faster() -> None:
    teacher = shape_of(num_hidden_layers=8)
    table = table_of(teacher)
    table[3]["seconds"] *= 3  # half of the width, six layers: somebody else was at work
    times = [interpolated(table, shape_of(num_hidden_layers=8, intermediate_size=size)) for size in range(8, 49, 4)]
    assert times == sorted(times)


def test_a_table_is_measured_once(teacher, tmp_path, monkeypatch) -> None:
    made = []
    folder = ModelFolder(teacher)
    monkeypatch.setattr("prunus.pipeline.search.latency.timed", lambda *_: made.append(1) or table_of(folder.shape))
    budget = (parse(Limit, {"what": "latency", "at_most": "20 ms"}, "test"),)
    first = latency_of(budget, folder, tmp_path, Runtime())(budget[0], folder.shape)
    assert latency_of(budget, folder, tmp_path, Runtime())(budget[0], folder.shape) == first
    assert len(made) == len(list(tmp_path.glob("latency-*.json"))) == 1


def test_a_format_that_is_not_timed_is_refused() -> None:
    limit = Limit(what="latency", at_most="20 ms", format="q6_k")
    with pytest.raises(RecipeError, match="decode cannot be timed in q6_k; allowed: f16, bf16, q8_0, q4_k_m"):
        check_latency(limit, "search.budget")
