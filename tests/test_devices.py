"""Losses and steps on a device other than the CPU: no tensor stays behind on the CPU, and results are the CPU's."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.pretended import pretended

FOLDER = Path(__file__).parents[1] / "benchmarks"
QUICK = ("losses", "log-probabilities", "Muon", "targets", "generation", "continuations", "score")
SLOW = ("guides", "preferences", "cut, rotated", "cut, channels", "cut, depth", "distill, AdamW", "distill, Muon",
        "evaluate", "export")  # fmt: skip


@pytest.fixture(scope="module")
def checks() -> Iterator[ModuleType]:
    """The checks of a GPU, on tiny models."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("gpu_checks")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def made(checks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return importlib.import_module("gpu_made").make(tmp_path_factory.mktemp("gpu"), small=True)


def test_every_check_is_tested(checks: ModuleType) -> None:
    assert set(checks.CHECKS) == {*QUICK, *SLOW, "compiled"}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_device_gives_what_the_cpu_gives(name: str, checks: ModuleType, made: Any) -> None:
    assert_equal(checks, name, torch.float32, checks.CHECKS[name].float32, made)


@pytest.mark.parametrize("name", ["targets", "log-probabilities", pytest.param("guides", marks=pytest.mark.slow)])
def test_products_in_bfloat16_are_near(name: str, checks: ModuleType, made: Any) -> None:
    """The sums of an LM head are in float32 there, by a product that the CPU does not have."""
    assert_equal(checks, name, torch.bfloat16, checks.CHECKS[name].bfloat16, made)


def assert_equal(checks: ModuleType, name: str, dtype: torch.dtype, tolerance: float, made: Any) -> None:
    expected = checks.CHECKS[name].run(checks.Where(torch.device("cpu"), torch.float32, made))
    with pretended() as device:
        found = checks.CHECKS[name].run(checks.Where(device, dtype, made))
        found = {key: value.cpu() for key, value in found.items()}
    assert max(checks.errors(found, expected).values()) <= tolerance


def test_what_mixes_devices_fails() -> None:
    with pretended() as device:
        there, here = torch.ones(2, device=device), torch.ones(2)
        assert (there + 1 + here.sum()).tolist() == [4, 4]
        for mixed in (lambda: there + here, lambda: torch.stack([there.sum(), here.sum()]), lambda: here[there > 0]):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
