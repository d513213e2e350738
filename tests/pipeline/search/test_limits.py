"""Budgets as text: every limit that can be written is read with its number, unit and options."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.pipeline.search.limits import from_yaml, parse_budget, quantity

UNITS = {
    "file": {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "memory": {"bytes": 1, "G": 1e9, "GB": 1e9, "gib": 2**30, "TiB": 2**40},
    "parameters": {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "M parameters": 1e6, "b params": 1e9},
    "non_embedding_parameters": {"M": 1e6, "B parameters": 1e9},
    "flops": {"G": 1e9, "GFLOP": 1e9, "T FLOPs": 1e12, "GFLOPs per token": 1e9, "gflop/token": 1e9},
    "latency": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
}
PAIRS = [(what, unit) for what, units in UNITS.items() for unit in units]
NUMBERS = st.one_of(st.integers(0, 10**9), st.floats(1e-3, 1e9, allow_nan=False))


@given(st.sampled_from(PAIRS), NUMBERS, st.sampled_from(["", " "]))
def test_a_number_with_a_unit_is_that_number_of_it(pair: tuple[str, str], number: float, space: str) -> None:
    what, unit = pair
    (key, value), *others = quantity(f"{number!r}{space}{unit}", what).items()
    assert (key, others) == ("at_most", [])
    assert math.isclose(value, number * UNITS[what][unit])


@given(st.sampled_from(list(UNITS)), st.floats(0, 100))
def test_percentages_are_shares_of_the_teacher(what: str, percent: float) -> None:
    expected = {"at_most": pytest.approx(percent / 100), "of_teacher": True}
    assert quantity(f"{percent!r}%", what) == expected
    assert quantity(f"{percent!r} % of the teacher's", what) == expected


@pytest.mark.parametrize(
    ("value", "what"),
    [("2 GB", "latency"), ("2 ms", "file"), ("2 KiB", "parameters"), ("2 b b", "file"), ("2 B/s", "memory")],
)
def test_units_of_another_quantity_are_refused(value: str, what: str) -> None:
    with pytest.raises(ValueError, match="unknown unit .*; examples: "):
        quantity(value, what)


@pytest.mark.parametrize("value", ["", "many", "-3", True, None, "1..5 GB", "_1"])
def test_other_values_are_no_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a number; examples: "):
        quantity(value, "file")


OPTIONS = st.fixed_dictionaries({}, optional={"format": st.just("q4_k_m"), "batch": st.integers(1, 9)})


@given(st.lists(st.tuples(st.integers(1, 9999), OPTIONS), min_size=1, max_size=3), st.sampled_from([", ", "; "]))
def test_each_limit_has_its_options(limits: list[tuple[int, dict[str, Any]]], between: str) -> None:
    """Also where a clause has a comma before `batch`."""
    clauses, expected = [], []
    for context, options in limits:
        start = f"{options['format']} " if "format" in options else ""
        batch = f", batch {options['batch']}" if "batch" in options else ""
        clauses.append(f"{start}context {context}{batch} in <= 3 GB")
        expected.append({"what": "memory", "context": context, "at_most": "3 GB", **options})
    assert parse_budget(between.join(clauses)) == expected
    assert from_yaml(clauses) == expected


def test_mappings_are_not_converted() -> None:
    limit = {"what": "parameters", "at_most": 5}
    assert from_yaml(limit) == [limit]
    assert from_yaml([limit, "file <= 2 GB"]) == [limit, {"what": "file", "at_most": "2 GB"}]
    with pytest.raises(ValueError, match="7 is not a budget; examples: "):
        from_yaml(7)
