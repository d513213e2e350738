"""`runtime.precision: auto` on a CPU, and work in bfloat16."""

import json
from pathlib import Path

import pytest
import torch

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.models import precision
from prunus.models.folder import ModelFolder
from prunus.models.precision import Gains
from prunus.pipeline import precision as choice
from prunus.pipeline.plan import make_plan
from prunus.pipeline.precision import CACHE, mixed, settle, used
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.runtime import Runtime
from prunus.training.objectives import CrossEntropy
from tests.pipeline.recipes import tiny_recipe
from tests.tiny import load

QUIET = Console(quiet=True)


class Machine:
    """A processor with bfloat16, whose gains are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.gains, self.timed = Gains(2.0, 1.5), []
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setattr(precision, "product_dtype", lambda _: torch.bfloat16)
        monkeypatch.setattr(choice, "_LEAST", 0)
        monkeypatch.setattr(choice, "may_have_bfloat16", lambda: True)
        monkeypatch.setattr(precision, "measure_gains", self.measure)

    def measure(self, sizes: precision.Sizes) -> Gains:
        self.timed.append(sizes)
        return self.gains


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path / "cache")


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [(Gains(2.0, 1.2), "bfloat16"), (Gains(2.0, 1.05), "float32"), (Gains(1.05, 2.0), "float32")],
)
def test_bfloat16_must_be_faster_in_inference_and_in_training(
    machine: Machine, teacher: Path, gains: Gains, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gains = gains
    assert settle(Runtime(), ModelFolder(teacher).shape, Console()).precision == chosen
    shown = "".join(capsys.readouterr())
    assert all(figure in shown for figure in (f"{gains.inference:.2f}", f"{gains.training:.2f}", chosen))


def test_a_machine_is_timed_once_for_each_size(machine: Machine, teacher: Path) -> None:
    shape = ModelFolder(teacher).shape
    assert [settle(Runtime(), shape, QUIET).precision for _ in range(3)] == ["bfloat16"] * 3
    assert len(machine.timed) == 1
    settle(Runtime(), ModelFolder(teacher).shape.with_dimensions({"intermediate_size": 8}), QUIET)
    assert [sizes.neurons for sizes in machine.timed] == [shape.intermediate_size, 8]


@pytest.mark.parametrize("content", ["{", "[]", "{}", None])
def test_a_damaged_cache_is_measured_again(
    machine: Machine, teacher: Path, tmp_path: Path, content: str | None
) -> None:
    shape, file = ModelFolder(teacher).shape, tmp_path / "cache" / "prunus" / CACHE
    settle(Runtime(), shape, QUIET)
    key = next(iter(json.loads(file.read_text())))
    file.write_text(content or json.dumps({key: ["fast", None]}))
    assert settle(Runtime(), shape, QUIET).precision == "bfloat16"
    assert len(machine.timed) == 2


def test_nothing_is_timed_if_the_answer_is_known(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, teacher: Path
) -> None:
    shape = ModelFolder(teacher).shape
    for name in ("float32", "bfloat16"):
        assert settle(Runtime(precision=name), shape, QUIET).precision == name
    monkeypatch.setattr(choice, "_LEAST", shape.hidden_size + 1)
    assert settle(Runtime(), shape, QUIET).precision == "float32"
    monkeypatch.setattr(choice, "_LEAST", 0)
    monkeypatch.setattr(precision, "product_dtype", lambda _: torch.float32)
    assert settle(Runtime(), shape, QUIET).precision == "float32"
    assert not machine.timed


@pytest.mark.slow
def test_a_run_uses_one_precision_and_records_it(
    machine: Machine, teacher: Path, corpus: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(
        teacher, corpus, held_out, students={"width": {"prune": {"hidden_size": 16, "intermediate_size": 24}}}
    )
    plan = make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")
    run_plan(plan, Console())
    assert len(machine.timed) == 1
    assert {step.artifact.record["precision"] for step in plan.steps} == {"bfloat16"}
    assert mixed(Runtime(precision="bfloat16"), plan.steps) is None
    capsys.readouterr()
    again = make_plan(parse(Recipe, {**recipe, "runtime": {"precision": "float32"}}, "test"), tmp_path / "run")
    run_plan(again, Console())
    warning = " ".join("".join(capsys.readouterr()).split())
    assert "were computed in bfloat16; the next ones use float32. Set runtime.precision: bfloat16" in warning


def test_a_command_uses_the_faster_precision(machine: Machine, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    words = ["score", teacher, "--corpus", corpus, "--out", tmp_path / "scores", "--samples", 4, "--sequence-length", 8]
    assert main([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "scores" / "artifact.json").read_text())["precision"] == "bfloat16"


def test_without_bfloat16_the_precision_is_float32() -> None:
    assert used(Runtime(device="cpu")) == "float32"
    assert used(Runtime(device="cpu", precision="bfloat16")) == "bfloat16"


def test_training_in_bfloat16_ends_near_that_in_float32(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    found = []
    for name in ("float32", "bfloat16"):
        words = ["correct", teacher, "--corpus", corpus, "--out", tmp_path / name / "out", "--tokens", 20 * 8 * 32]
        words += ["--sequence-length", 32, "--batch-size", 8, "--warmup-steps", 1, "--learning-rate", 1e-2]
        words += ["--min-learning-rate", 1e-3, "--runtime.precision", name]
        assert main([str(word) for word in words]) == 0
        found.append(load(tmp_path / name / "out"))
    ids = torch.arange(40)[None]
    assert all(parameter.dtype == torch.float32 for parameter in found[1].parameters())
    with torch.no_grad():
        losses = [CrossEntropy(model)(ids).item() for model in found]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
