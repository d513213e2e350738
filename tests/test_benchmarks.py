"""Every benchmark still fits the code that it measures: its help, recipes and functions, and tiny runs of the cheap."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from prunus.config import parse
from prunus.models.shape import Shape
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))
COMMANDS = [name for name in NAMES if "def main()" in (FOLDER / f"{name}.py").read_text()]
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
Load = Callable[[str], ModuleType]


class PlannedError(Exception):
    """In place of a run."""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a benchmark as its own process would: its folder first, since some import another."""
    monkeypatch.syspath_prepend(FOLDER)
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def call(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        call(load(name), monkeypatch, "--help")
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")


@pytest.mark.parametrize(
    ("name", "arguments", "step"),
    [
        ("alignment", ("--divide", 70), "student align-1-sft"),
        ("merging", ("--tokens", 4100), "evolved merge"),
        ("quantise", ("--tokens", 4100, "--phases", "gguf-q4_0:adamw:1e-4:2100"), "phase1 qat"),
        ("search", ("--teacher", "sapling", "--divide", 15), "search search"),
        ("targets", ("src/prunus/world/sapling", "--corpus", "builtin:world", "--held-out", "builtin:world",
                     "--tokens", 8192), "cut distill"),
    ],
)  # fmt: skip
def test_recipes_plan(
    name: str, arguments: tuple[object, ...], step: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the smallest size that the benchmark runs at."""
    plans: list[Plan] = []

    def run_plan(plan: Plan, *_: Any) -> None:
        plans.append(plan)
        raise PlannedError

    module = load(name)
    monkeypatch.setattr(module, "run_plan", run_plan)
    monkeypatch.chdir(FOLDER.parent)
    with pytest.raises(PlannedError):
        call(module, monkeypatch, *([] if name == "targets" else [tmp_path]), *arguments)
    assert step in {each.name for each in plans[0].steps}


def test_kills_at_functions_that_exist(load: Load, tmp_path: Path) -> None:
    kills = load("kills")
    make_plan(parse(Recipe, kills.RECIPE, "kills"), tmp_path)
    for module, name, _ in kills.NAMED:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)


def test_distill_and_align_compute_the_same_loss(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every implementation of ours against whole logits, which is what `check` raises over."""
    distill, align = load("distill"), load("align")
    for name, value in (("BATCH", 2), ("LENGTH", 16), ("CHUNK", 32), ("TEACHER", TINY), ("STUDENT", TINY)):
        monkeypatch.setattr(distill, name, value)
    setting = distill.Setting(300)
    ours = {name: distill.ways(False)[name] for name in ("floor", "prunus, not compiled", "full logits")}
    ours |= {name: distill.prunus_with(compiled=False, **loss) for name, loss in distill.LOSSES.items()}
    errors = distill.check({name: way(setting) for name, way in ours.items()})
    assert set(errors) == {"prunus, not compiled", "full logits"}
    monkeypatch.setattr(align, "STUDENT", TINY)
    setting = align.Setting(300)
    for task, ways in align.WAYS.items():
        steps = {name: way(setting) for name, way in ways.items() if "TRL" not in name}
        assert len(align.check(steps)) == len(steps) >= 2, task


def test_score(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    score = load("score")
    monkeypatch.setattr(score, "CONFIG", {**score.CONFIG, **TINY, "num_key_value_heads": 1, "head_dim": 16})
    call(score, monkeypatch, "--sequence-length", 16, "--repetitions", 1, "--threads", 1, "--json", tmp_path / "f.json")
    assert set(json.loads((tmp_path / "f.json").read_text())["ratios"]) == {*score.VARIANTS, *score.BACKWARD}


def test_curves_of_kept_figures(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = FOLDER / "results" / "recovery-stories260k-width.json"
    call(load("curves"), monkeypatch, kept, tmp_path / "curves.svg")
    kinds = {run["kind"] for run in json.loads(kept.read_text())["runs"]}
    text = (tmp_path / "curves.svg").read_text()
    assert all(f">{kind}</text>" in text for kind in kinds)


def test_recovery(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Path, corpus: Path, held_out: Path
) -> None:
    """Two kinds of students, each trained for two steps."""
    arguments = ["--corpus", corpus, "--held-out", held_out, "--prune", '{"hidden_size": 16, "intermediate_size": 24}',
                 "--kinds", "minitron", "rotated by gradients, refitted, few steps", "--tokens", 128,
                 "--sequence-length", 16, "--batch-size", 4, "--rates", 1e-3, "--seeds", 1,
                 "--calibration-samples", 4, "--eval-tokens", 64]  # fmt: skip
    call(load("recovery"), monkeypatch, teacher, *arguments, "--json", tmp_path / "f.json")
    runs = json.loads((tmp_path / "f.json").read_text())["runs"]
    assert [run["tokens"][-1] for run in runs] == [128, 128]


def test_a_checkpoint_can_be_cut(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it is, a quarter of its layers is at least one."""
    prune = load("prune")
    monkeypatch.setattr(prune, "CONFIG", {**prune.CONFIG, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 64})
    folder = prune.make_checkpoint(tmp_path / "model", 1e-6)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] // 4 == 1


def test_speed_has_a_shape_at_any_scale(load: Load) -> None:
    speed = load("speed")
    for scale in (1, 4, 16, 64):
        assert Shape.from_config(speed.settings(scale), speed.LLAMA, "speed").num_key_value_heads >= 1


@pytest.mark.processes
def test_gpu(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All parts, on the CPU; then a part that fails and one without time, which are reported."""
    gpu = load("gpu")
    with pytest.raises(SystemExit, match="^0$"):
        call(gpu, monkeypatch, "--small", "--device", "cpu", "--json", tmp_path / "f.json")
    parts = json.loads((tmp_path / "f.json").read_text())["parts"]
    assert set(parts) == set(gpu.PARTS)
    assert {row["check"] for row in parts["checks"]["rows"]} == set(gpu.CHECKS)
    assert [row["layers"] for row in parts["step"]["rows"] if "seconds" in row] == [1, 2, 1]
    assert parts["shards"]["rows"][0]["error"] <= 1e-4
    assert [row["batch"] for row in parts["generation"]["rows"]] == list(gpu.BATCHES)
    assert "Nothing failed." in capsys.readouterr().out


def test_gpu_reports_what_fails(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = load("gpu")

    def broken(_: Any) -> Any:
        raise ValueError("of no use")

    wrong = gpu.gpu_checks.Check(lambda where: {"value": torch.ones(2) * (1 + where.made.calls.pop())}, 1e-3)
    made = SimpleNamespace(calls=[1, 0])
    monkeypatch.setattr(gpu, "make", lambda *_: made)
    monkeypatch.setattr(gpu, "CHECKS", {"broken": gpu.gpu_checks.Check(broken, 1e-3), "wrong": wrong})
    monkeypatch.setitem(gpu.PARTS, "step", gpu.Part(broken, 0))
    monkeypatch.setitem(gpu.PARTS, "generation", gpu.Part(broken, 600))
    words = ["--parts", "checks", "step", "generation", "--device", "cpu", "--json", tmp_path / "f.json"]
    with pytest.raises(SystemExit, match="^1$"):
        call(gpu, monkeypatch, *words)
    parts = json.loads((tmp_path / "f.json").read_text())["parts"]
    assert [text.splitlines()[0] for text in parts["checks"]["failed"]] == [
        "broken", "wrong in float32: the error of value is 1, above 0.001"
    ]  # fmt: skip
    assert "ValueError: of no use" in parts["step"]["failed"][0]
    assert parts["generation"] == {"skipped": True}
    assert "Failed: checks, step" in capsys.readouterr().out
