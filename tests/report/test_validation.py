"""The curves of validation: each student's line, and the teacher's constant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.report.records import load_run
from prunus.report.validation import FILE, validation_curves
from tests.report.making import make_run, write
from tests.report.test_curves import read_back


def line(model: str, tokens: int, kl: float | None, repetition: float, right: float) -> dict[str, Any]:
    text = {} if kl is None else {"kl": kl}
    scores = {"reward": right + 0.1, "pass@1": right, "sampled pass@4": right + 0.3}
    return {"model": model, "step": tokens // 8, "tokens": tokens, "nll": 3.0, **text, "repetition": repetition,
            "tasks": {"ifeval": scores}, "answers": ["a"]}  # fmt: skip


def drawn(root: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {title: read_back(chart)[0] for title, _, chart in validation_curves(load_run(root))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_run(tmp_path)
    measured = [
        line("teacher", 0, None, 0.02, 0.5), line("student", 0, 2.0, 0.5, 0.0), line("student", 80, 1.5, 0.3, 0.25),
        line("student", 240, 1.0, 0.25, 0.375),
    ]  # fmt: skip
    write(root / "w" / "distill-00000000" / FILE, measured)
    return root


def test_each_figure_has_a_chart_with_the_teachers_line(root: Path) -> None:
    found = drawn(root)
    assert list(found) == [
        "KL(teacher ‖ student) on held-out text",
        "Repetition in greedy continuations of held-out text",
        "ifeval during training",
    ]
    kl, repetition, task = found.values()
    assert list(kl) == ["w"]
    np.testing.assert_allclose(kl["w"], [(0, 2.0), (80, 1.5), (240, 1.0)], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(repetition["w"], [(0, 0.5), (80, 0.3), (240, 0.25)], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(repetition["teacher"], [(0, 0.02), (240, 0.02)], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(task["w: pass@1"], [(0, 0.0), (80, 0.25), (240, 0.375)], rtol=0.02, atol=0.01)
    np.testing.assert_allclose(task["teacher: sampled pass@4"], [(0, 0.8), (240, 0.8)], rtol=0.02, atol=0.01)
    assert "w: reward" not in task


def test_a_run_without_validation_has_none(tmp_path: Path) -> None:
    assert drawn(make_run(tmp_path)) == {}


def test_a_damaged_record_is_named(root: Path) -> None:
    write(root / "w" / "distill-00000000" / FILE, [{"model": "student", "tokens": "many"}])
    (message,) = load_run(root).damaged
    assert f"{FILE}, line 1: damaged: tokens" in message
