"""When validation measures, and which options it refuses."""

import pytest

from prunus.config import parse
from prunus.errors import RecipeError
from prunus.steps.distill.config import DistillConfig
from prunus.validation.config import ValidationConfig


@pytest.mark.parametrize(
    ("times", "total", "steps"),
    [(1, 7, (0, 7)), (4, 10, (0, 2, 5, 8, 10)), (5, 3, (0, 1, 2, 3)), (3, 261, (0, 87, 174, 261))],
)
def test_measurements_are_spread_evenly_from_start_to_end(times: int, total: int, steps: tuple[int, ...]) -> None:
    assert ValidationConfig(times=times).steps(total) == steps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": {"a": "a.jsonl"}}, "times: missing"),
        ({"times": 2, "max_tokens": 0, "prompt_count": 0}, "measures nothing"),
        ({"times": -1}, "expected at least 0"),
        (True, "expected a number, got a boolean"),
    ],
)
def test_options_that_measure_nothing_are_refused(given: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(DistillConfig, {"tokens": 1024, "validation": given}, "distill")


def test_without_validation_earlier_results_stay_valid() -> None:
    plain = parse(DistillConfig, {"tokens": 1024}, "distill")
    assert "validation" not in plain.identity()
    assert parse(DistillConfig, {"tokens": 1024, "validation": 0}, "distill").identity() == plain.identity()
    assert parse(DistillConfig, {"tokens": 1024, "validation": 3}, "distill").identity() != plain.identity()
