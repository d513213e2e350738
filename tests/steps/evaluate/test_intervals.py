import numpy as np
import pytest

from prunus.steps.evaluate.intervals import ratio_interval


def test_the_value_is_the_ratio_of_sums() -> None:
    interval = ratio_interval(np.array([1.0, 9.0]), np.array([1.0, 3.0]), 0.95, 200, 0)
    assert interval["value"] == 2.5


def test_equal_windows_have_no_width() -> None:
    interval = ratio_interval(np.full(20, 2.0), np.full(20, 4.0), 0.95, 200, 0, np.exp)
    assert interval == {"value": np.exp(0.5), "low": np.exp(0.5), "high": np.exp(0.5)}


def test_the_interval_covers_at_its_level() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        sample = draw.normal(3.0, 1.0, 60)
        interval = ratio_interval(sample, np.ones(60), 0.9, 300, seed)
        covered += interval["low"] <= 3.0 <= interval["high"]
    assert 0.84 <= covered / 300 <= 0.95


def test_a_paired_difference_is_narrower_than_either() -> None:
    draw = np.random.default_rng(0)
    base = draw.normal(3.0, 1.0, 200)
    other = base + draw.normal(0.1, 0.05, 200)
    alone = ratio_interval(other, np.ones(200), 0.95, 500, 0)
    paired = ratio_interval(other - base, np.ones(200), 0.95, 500, 0)
    assert paired["high"] - paired["low"] < (alone["high"] - alone["low"]) / 5
    assert paired["value"] == pytest.approx((other - base).mean())


def test_many_windows_are_resampled_in_parts_with_the_same_law() -> None:
    sample = np.random.default_rng(1).normal(0, 1, 40_000)
    interval = ratio_interval(sample, np.ones(len(sample)), 0.95, 400, 0)
    assert interval["high"] - interval["low"] == pytest.approx(2 * 1.96 / 200, rel=0.15)
