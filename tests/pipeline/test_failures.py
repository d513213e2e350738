"""Runs in which a step fails: which steps are done, which are skipped, and what is reported."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.errors import ModelError, PlaceError, RunError
from prunus.graph.artifact import Artifact
from prunus.graph.locks import lock_result
from prunus.pipeline.failures import storage_problem
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.records import load_run
from tests.pipeline.recipes import tiny_recipe, write
from tests.processes import Command

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
STUDENTS = {"width": {"prune": {"hidden_size": 16}}, "depth": {"prune": {"num_hidden_layers": 2}}}


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path) -> dict:
    return tiny_recipe(teacher, corpus, held_out, correct={}, students=STUDENTS)


def failing(monkeypatch: pytest.MonkeyPatch, room: str, when: Callable[[Path], bool], error: Exception) -> None:
    """Have a step fail in the folders for which `when` says so."""
    module = importlib.import_module(f"prunus.steps.{room}.step")
    real = module.run

    def run(config, inputs, out, runtime, console):
        if when(out):
            raise error
        return real(config, inputs, out, runtime, console)

    monkeypatch.setattr(module, "run", run)


def in_folder(name: str) -> Callable[[Path], bool]:
    return lambda out: name in str(out)


def done(root: Path) -> set[str]:
    return {str(file.parent.relative_to(root)).rpartition("-")[0] for file in root.rglob("artifact.json")}


def test_one_students_failure_leaves_the_others_and_is_reported(recipe, tmp_path, monkeypatch, capsys) -> None:
    root, file = tmp_path / "run", write(tmp_path / "recipe.yaml", recipe)
    with monkeypatch.context() as patch:
        failing(patch, "distill", in_folder("width/distill"), ModelError("reopened, its logits differ"))
        assert main(["run", str(file), "--out", str(root)]) == 2
    text = capsys.readouterr()
    assert "1 step failed; results of the others are kept" in text.err
    assert "width distill: reopened, its logits differ" in text.err
    assert "width evaluate: skipped, needs `width distill`" in text.err
    assert {"depth/distill", "depth/evaluate", "width/evaluate-pruned"} <= done(root)
    assert not {"width/distill", "width/evaluate"} & done(root)
    assert json.loads((root / "run.json").read_text())["failures"] == [
        {"step": "width distill", "message": "reopened, its logits differ"}
    ]
    run = load_run(root)
    assert run.missing == ("width distill", "width evaluate")
    assert "Failed: width distill: reopened, its logits differ" in (root / "report.html").read_text()
    before = {record: record.stat().st_mtime_ns for record in root.rglob("artifact.json")}
    assert main(["run", str(file), "--out", str(root)]) == 0  # what was at fault is mended
    assert all(record.stat().st_mtime_ns == time for record, time in before.items())
    assert json.loads((root / "run.json").read_text())["failures"] == []
    assert "Failed" not in (root / "report.html").read_text()


WHOLE = ("depth prune", "depth evaluate-pruned", "depth distill", "depth evaluate")


@pytest.mark.parametrize(
    ("room", "failed", "gone"),
    [
        ("evaluate", "depth evaluate-pruned", ("depth evaluate-pruned",)),
        ("evaluate", "depth evaluate", ("depth evaluate",)),
        ("prune", "depth prune", WHOLE),
    ],
)
def test_whatever_depends_on_it_is_skipped_and_nothing_else(recipe, tmp_path, monkeypatch, room, failed, gone) -> None:
    plan = make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")
    (step,) = (step for step in plan.steps if step.name == failed)
    failing(monkeypatch, room, lambda out: out == step.artifact.partial, ModelError("of no use"))
    with pytest.raises(RunError, match=f"{failed}: of no use"):
        run_plan(plan, QUIET)
    assert {step.name for step in plan.steps if not (step.artifact.path / "artifact.json").is_file()} == set(gone)


def test_a_shared_step_and_a_full_disk_end_the_run(recipe, tmp_path, monkeypatch) -> None:
    for number, (room, where, error, kind) in enumerate(
        [
            ("score", "teacher/score", ModelError("gives NaN"), ModelError),
            ("prune", "width/prune", OSError(28, "No space left on device"), PlaceError),
        ]
    ):
        plan = make_plan(parse(Recipe, recipe, "test"), tmp_path / str(number))
        with monkeypatch.context() as patch:
            failing(patch, room, in_folder(where), error)
            with pytest.raises(kind, match=r"gives NaN|No space left"):
                run_plan(plan, QUIET)
        assert "depth/prune" not in done(plan.root)
        assert json.loads((plan.root / "run.json").read_text())["failures"]


def test_a_figure_that_is_not_finite_is_no_result(teacher, corpus, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("prunus.steps.score.step.run", lambda *_: {"samples": float("nan")})
    words = ["score", teacher, "--corpus", corpus, "--sequence-length", "16", "--out", tmp_path / "scores"]
    assert main([str(word) for word in words]) == 2
    assert "score: samples is nan, expected a finite number" in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


def test_two_processes_finish_the_other_student(recipe, tmp_path) -> None:
    students = {**STUDENTS, "width": {**STUDENTS["width"], "distill": {"learning_rate": 1e30, "optimizer": "adamw"}}}
    file = write(tmp_path / "recipe.yaml", {**recipe, "students": students})
    result = Command(["run", str(file), "--out", str(tmp_path / "run")], count=2).wait()
    assert result.returncode == 2
    assert re.search("width distill: the (loss|gradient) is ", result.stderr), result.stderr[-3000:]
    assert "width evaluate: skipped, needs `width distill`" in result.stderr
    assert {"depth/distill", "depth/evaluate"} <= done(tmp_path / "run")


def test_messages_of_libraries_about_a_full_disk_are_recognised(tmp_path: Path) -> None:
    assert storage_problem(ValueError("unexpected"), tmp_path) is None
    assert storage_problem(RuntimeError("PytorchStreamReader failed reading zip archive"), tmp_path) is None
    assert storage_problem(OSError(30, "Read-only file system"), tmp_path) == "Read-only file system"


def test_a_bit_flipped_in_what_a_step_reads_is_noticed(recipe, tmp_path) -> None:
    root, file = tmp_path / "run", write(tmp_path / "recipe.yaml", {**recipe, "students": {"depth": STUDENTS["depth"]}})
    assert main(["run", str(file), "--out", str(root)]) == 0
    (evaluation,) = [path for path in root.glob("depth/evaluate-*") if "pruned" not in path.name]
    Artifact(evaluation, evaluation.name.rpartition("-")[2]).remove()
    weights = next(root.glob("depth/distill-*/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert main(["run", str(file), "--out", str(root)]) == 2
    assert not evaluation.exists()
    assert "depth distill" in json.loads((root / "run.json").read_text())["failures"][0]["step"]
    assert main(["verify", str(root)]) == 2


def test_single_commands_read_nothing_damaged_and_share_no_place(teacher, corpus, tmp_path, capsys) -> None:
    words = ["score", teacher, "--corpus", corpus, "--sequence-length", "16", "--samples", "4"]
    command = [str(word) for word in [*words, "--out", tmp_path / "scores"]]
    with lock_result(tmp_path / "scores"):
        assert main(command) == 2
    assert "scores: another command writes this result" in capsys.readouterr().err
    assert main(command) == 0
    assert not list(tmp_path.rglob(".*.lock"))
    scores = tmp_path / "scores" / "scores.safetensors"
    content = bytearray(scores.read_bytes())
    content[-1] ^= 64
    scores.write_bytes(content)
    cut = ["prune", teacher, "--scores", tmp_path / "scores", "--hidden-size", "16", "--out", tmp_path / "cut"]
    assert main([str(word) for word in cut]) == 2
    assert f"{scores}: damaged" in capsys.readouterr().err
    assert not (tmp_path / "cut").exists()
    cut[3] = tmp_path / "data"
    assert main([str(word) for word in cut]) == 2
    assert "is not a finished result" in capsys.readouterr().err


def test_a_report_of_damaged_answers_is_refused_and_one_elsewhere_needs_no_writing(recipe, tmp_path, capsys) -> None:
    root, file = tmp_path / "run", write(tmp_path / "recipe.yaml", {**recipe, "students": {"depth": STUDENTS["depth"]}})
    assert main(["run", str(file), "--out", str(root)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunus.report.card.write_cards", unwritable)
        assert main(["report", str(root), "--out", str(tmp_path / "elsewhere.html")]) == 0
        assert "cards were not updated" in capsys.readouterr().out
        assert main(["report", str(root)]) == 2
    assert (tmp_path / "elsewhere.html").is_file()
    answers = next(root.glob("depth/evaluate-*/answers.jsonl"))
    place = len('{"prompt": "')
    content = answers.read_text()
    answers.write_text(content[:place] + chr(ord(content[place]) ^ 1) + content[place + 1 :])
    assert main(["report", str(root)]) == 2
    assert f"{answers}: damaged" in capsys.readouterr().err


def unwritable(root: Path) -> None:
    raise OSError(30, "Read-only file system", str(root))
