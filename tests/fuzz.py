"""Inputs that nobody thought of: some hundred for each test in CI, and more, drawn anew, by `make fuzz TIMES=50`."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("PRUNUS_FUZZ", "0"))
"""How many times as many examples are made as in CI, drawn anew; 0 for CI's own, which are the same every time."""


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Mark a test that holds for any input, and say how many it gets in CI."""
    options = settings(
        max_examples=examples * max(TIMES, 1),
        derandomize=not TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    return lambda test: pytest.mark.fuzz(options(test))
