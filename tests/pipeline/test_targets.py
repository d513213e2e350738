"""Recipes whose students train on targets that were kept: who shares them, what is refused, and a whole run."""

import json
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.errors import PrunusError
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from tests.fake import serving
from tests.pipeline.recipes import tiny_recipe
from tests.steps.targets.serving import stand_in

CACHED = {**tiny_recipe(Path(), Path(), Path())["distill"], "targets": "cached"}
STUDENTS = {
    "width": {"prune": {"hidden_size": 16, "intermediate_size": 24}},
    "depth": {"prune": {"num_hidden_layers": 2}},
}
QUIET = Console(quiet=True)


@pytest.fixture
def plan(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path):
    def make(distill: dict | None = None, **changes) -> Plan:
        changes = {"students": STUDENTS, "correct": {"tokens": 0}, "distill": {**CACHED, **(distill or {})}, **changes}
        return make_plan(parse(Recipe, tiny_recipe(teacher, corpus, held_out, **changes), "test"), tmp_path / "run")

    return make


def targets(plan: Plan) -> list:
    return [step for step in plan.steps if step.kind == "targets"]


def student(plan: Plan, name: str):
    return next(step for step in plan.steps if step.name == f"{name} distill")


def test_students_with_the_same_stream_share_stored_targets(plan) -> None:
    found = plan(targets={"keep": "samples", "count": 9}, distill={"temperature": 2.0})
    (kept,) = targets(found)
    assert kept.name == "teacher targets"
    assert kept.config.identity() == {
        "keep": "samples", "count": 9, "temperature": 2.0, "sequence_length": 16, "sequences": 64,
        "attend_across_documents": True, "seed": 3,
    }  # fmt: skip
    for name in STUDENTS:
        inputs = student(found, name).inputs
        assert inputs["targets"] is kept
        assert "teacher" not in inputs
    assert cost_of(kept, found).disk_bytes == 64 * 16 * 9 * 2
    assert cost_of(kept, found).tokens == 1024
    online = plan(distill={"targets": "online", "states": "none"})
    assert not targets(online)
    assert cost_of(student(found, "depth"), found).flops < cost_of(student(online, "depth"), online).flops


@pytest.mark.parametrize(
    "own",
    [
        {"temperature": 2.0},
        {"seed": 4},
        {"sequence_length": 32},
        {"tokens": 512},
        {"data": "teacher"},
        {"teacher_bits": 8},
    ],
)
def test_students_with_other_options_have_separate_targets(plan, own: dict) -> None:
    students = {**STUDENTS, "depth": {**STUDENTS["depth"], "distill": own}}
    found = plan(students=students, generate={"prompt_tokens": 4, "max_new_tokens": 8})
    assert len(targets(found)) == 2
    before = [step.name for step in found.steps]
    assert before.index("teacher targets") < before.index("width prune")
    assert (
        len(targets(plan(students={**STUDENTS, "depth": {**STUDENTS["depth"], "distill": {"learning_rate": 1}}}))) == 1
    )


def test_one_student_may_have_an_online_teacher(plan) -> None:
    found = plan(students={**STUDENTS, "depth": {**STUDENTS["depth"], "distill": {"targets": "online"}}})
    assert set(student(found, "depth").inputs) == {"student", "teacher", "tokens"}
    assert set(student(found, "width").inputs) == {"student", "targets", "tokens"}
    assert not targets(plan(distill={"tokens": 0}))


def test_a_student_from_scratch_needs_no_word_on_states(plan) -> None:
    students = {**STUDENTS, "scratch": {"prune": {"like": "width", "init": "random"}, "distill": {"states": "kept"}}}
    assert len(targets(plan(students=students))) == 1


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        (
            {"loss": "reverse_kl"},
            r"students.width.distill.targets: cached .* loss: reverse_kl .* loss: forward_kl, or tar",
        ),
        ({"loss": "cross_entropy"}, "allowed: loss: forward_kl, or targets: online"),
        ({"states": "kept"}, "allowed: states: none, or targets: online"),
        ({"token_weights": "teacher_entropy"}, "allowed: token_weights: uniform, or targets: online"),
        ({"data": "student", "prompt_tokens": 4}, "data: student needs more; allowed: data: corpus or teacher"),
        ({"top_k": 8}, "top_k: 8 needs more; allowed: no top_k, since targets.count sets how many"),
        ({"targets": "offline"}, "distill.targets"),
    ],
)
def test_what_needs_more_of_the_teacher_is_refused(plan, distill: dict, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        plan(distill)


SERVED = {"server": {"url": "http://localhost:8000/v1", "model": "teacher"}}


def test_a_served_teacher_costs_what_the_comparison_does(plan) -> None:
    costs = [
        cost_of(*targets(found), found)
        for found in (plan(), plan(targets=SERVED), plan(targets={"server": {**SERVED["server"], "compare": False}}))
    ]
    here, compared, served = costs
    assert here.memory_bytes > compared.memory_bytes == plan().teacher.parameters * 4 > served.memory_bytes == 0
    assert here.disk_bytes == compared.disk_bytes == served.disk_bytes
    assert here.flops > compared.flops == 0


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({"temperature": 2.0}, "temperature: 2 with targets.server needs more; allowed: temperature: 1, at which"),
        ({"teacher_bits": 8}, "teacher_bits: 8 with targets.server needs more; allowed: no teacher_bits, since the"),
        ({"targets": "online"}, "targets.server: no student trains on stored targets.* allowed: with distill.targets"),
    ],
)
def test_what_a_server_cannot_give_is_refused(plan, distill: dict, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        plan(distill, targets=SERVED)
    assert plan({"temperature": 2.0})


def test_a_cut_vocabulary_and_a_second_temperature_are_refused(plan) -> None:
    with pytest.raises(PrunusError, match="prune.vocab_size needs more; allowed: the teacher's full vocabulary"):
        plan(students={"words": {"prune": {"vocab_size": 270}}})
    with pytest.raises(PrunusError, match="targets.temperature: unknown key; allowed here: keep, count"):
        plan(targets={"temperature": 2.0})


def test_one_command_has_no_stored_targets(teacher, corpus, tmp_path, capsys) -> None:
    words = ["distill", teacher, "--teacher", teacher, "--corpus", corpus, "--tokens", 1024, "--out", tmp_path / "out"]
    words += ["--targets", "cached", "--sequence-length", 16, "--batch-size", 4, "--warmup-steps", 1]
    assert main([str(word) for word in words]) == 2
    assert "--targets: cached works in recipes only" in capsys.readouterr().err


def measured(plan: Plan, name: str) -> dict[str, float]:
    """What a step found."""
    (step,) = (step for step in plan.steps if step.name == name)
    return json.loads((step.artifact.path / "artifact.json").read_text())["metrics"]


@pytest.mark.slow
def test_a_run_on_stored_targets_of_all_tokens_ends_as_with_an_online_teacher(plan) -> None:
    found = plan(targets={"count": 300})
    run_plan(found, QUIET)
    online = plan(distill={"targets": "online", "states": "none"})
    run_plan(online, QUIET)
    assert measured(found, "teacher targets")["sequences"] == 64
    assert measured(found, "teacher targets")["kept_mass"] == pytest.approx(1)
    for name in STUDENTS:
        assert measured(found, f"{name} distill")["loss"] == pytest.approx(
            measured(online, f"{name} distill")["loss"], rel=1e-3
        )
        assert measured(found, f"{name} evaluate")["nll"] == pytest.approx(
            measured(online, f"{name} evaluate")["nll"], rel=1e-3
        )


@pytest.mark.slow
def test_a_run_on_a_servers_targets_ends_as_on_those_made_here(plan, teacher, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    students = {"width": STUDENTS["width"]}
    here = plan(targets={"count": 20}, students=students)
    run_plan(here, QUIET)
    with serving() as fake:
        fake.reply = stand_in(teacher)
        server = {"url": fake.url, "model": "teacher"}
        found = plan(targets={"count": 20, "server": server}, students=students)
        run_plan(found, QUIET)
    assert targets(found)[0].fingerprint != targets(here)[0].fingerprint
    for name, figure in (("teacher targets", "kept_mass"), ("width distill", "loss"), ("width evaluate", "nll")):
        assert measured(found, name)[figure] == pytest.approx(measured(here, name)[figure], rel=1e-3)


@pytest.mark.slow
def test_a_whole_run_on_what_was_drawn(plan) -> None:
    found = plan(targets={"keep": "samples", "count": 50})
    run_plan(found, QUIET)
    assert 0.1 < measured(found, "teacher targets")["kept_mass"] < 0.9
    before, after = (measured(found, f"width {label}")["kl"] for label in ("evaluate-pruned", "evaluate"))
    assert after < before
