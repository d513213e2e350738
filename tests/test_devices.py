"""Losses and steps on a device other than the CPU: no tensor stays behind on the CPU, and results are the CPU's."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunus.models.load import load_model
from prunus.runtime import Runtime
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as run_score
from prunus.training.objectives import CrossEntropy
from tests.cutting import QUIET, TEXT, score
from tests.families import make_teacher
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


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gpt2", "gemma2", "qwen3_moe"])
def test_families_are_scored_and_learn_there(model_type: str, tmp_path: Path) -> None:
    """Fused projections and LayerNorm, soft caps, and experts."""
    teacher = make_teacher(tmp_path / "teacher", model_type)
    collect = ("mean", "gradients", "covariance", "gradient_covariance", "lm_loss")
    score(teacher, tmp_path, collect=collect)
    expected = load_file(tmp_path / "scores" / "scores.safetensors") | {"loss": loss_of(teacher, torch.device("cpu"))}
    out = tmp_path / "there"
    out.mkdir()
    with pretended() as device:
        config = ScoreConfig(samples=8, sequence_length=24, collect=collect)
        runtime = Runtime(device=str(device), precision="float32")
        run_score(config, ScoreInputs(teacher, tmp_path / "tokens"), out, runtime, QUIET)
        found = load_file(out / "scores.safetensors") | {"loss": loss_of(teacher, device).cpu()}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max()), msg=name)


def loss_of(folder: Path, device: torch.device) -> torch.Tensor:
    """The loss of text by a model, after a backward pass."""
    loss = CrossEntropy(load_model(folder, device, torch.float32))(TEXT.to(device))
    loss.backward()
    return loss.detach()


@pytest.mark.slow
def test_the_benchmark_runs_there(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code for GPUs; the part `checks` is tested above, and `shards` starts another process."""
    words = ["--small", "--device", "cuda:0", "--parts", "step", "generation", "--peak", "1"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words, "--json", str(tmp_path / "f.json")])
    with pytest.raises(SystemExit, match="^0$"), pretended():
        importlib.import_module("gpu").main()
    step, generation = json.loads((tmp_path / "f.json").read_text())["parts"].values()
    assert [row["gigabytes"] for row in step["rows"] if "seconds" in row] == [1e-9] * 3
    assert len(generation["rows"]) == 3
    assert "of peak" in capsys.readouterr().out


def test_what_mixes_devices_fails() -> None:
    with pretended() as device:
        there, here = torch.ones(2, device=device), torch.ones(2)
        assert (there + 1 + here.sum()).tolist() == [4, 4]
        for mixed in (lambda: there + here, lambda: torch.stack([there.sum(), here.sum()]), lambda: here[there > 0]):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
