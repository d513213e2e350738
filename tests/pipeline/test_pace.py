"""The time of steps: from what is done, else from a product; nothing where nothing is known."""

from types import SimpleNamespace

import pytest

from prunus.costs import Cost
from prunus.pipeline import pace
from prunus.pipeline.machine import hardware
from prunus.runtime import Runtime

PRODUCT = 1e9


def step(kind: str, record: dict | None = None) -> SimpleNamespace:
    artifact = SimpleNamespace(record=record, is_done=lambda: record is not None)
    return SimpleNamespace(kind=kind, artifact=artifact)


def times(*steps: tuple[SimpleNamespace, float], device: str = "cpu") -> list[float | None]:
    plan = SimpleNamespace(
        steps=[one for one, _ in steps],
        teacher=SimpleNamespace(hidden_size=8, intermediate_size=16),
        recipe=SimpleNamespace(runtime=Runtime(device=device)),
    )
    return pace.seconds_of(plan, [Cost(flops=flops) for _, flops in steps])


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_product", lambda shape: PRODUCT)


def done(kind: str, seconds: float, machine: str | None = None) -> SimpleNamespace:
    return step(kind, {"seconds": seconds, "hardware": machine or hardware()})


def test_steps_reach_a_share_of_a_product() -> None:
    assert times((step("distill"), 1.1e10), (step("score"), 3.6e9)) == [pytest.approx(20), pytest.approx(10)]


def test_a_kind_that_is_done_tells_its_pace_and_no_other() -> None:
    found = times(
        (done("distill", 100), 1e10), (done("distill", 200), 2e10), (step("distill"), 5e9), (step("prune"), 5.5e8)
    )
    assert found == [None, None, pytest.approx(50), pytest.approx(1)]


def test_a_short_step_and_another_machine_tell_nothing() -> None:
    found = times(
        (done("distill", 5), 1e10), (done("distill", 500, "another processor"), 1e10), (step("distill"), 5.5e8)
    )
    assert found[-1] == pytest.approx(1)


def test_a_gpu_has_a_pace_only_for_steps_that_it_has_done() -> None:
    found = times(
        (done("distill", 100, f"{hardware()}, 1 x H200"), 1e12),
        (step("distill"), 1e11),
        (step("score"), 1e11),
        device="cuda",
    )
    assert found == [None, pytest.approx(10), None]


def test_a_step_without_flops_has_no_time() -> None:
    assert times((step("data"), 0.0)) == [None]


def test_a_product_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1e6 < pace._product(SimpleNamespace(hidden_size=64, intermediate_size=96)) < 1e14
