"""A teacher in few bits: what a plan says of it, what is refused, and a run with it."""

import json
from pathlib import Path

import pytest

from prunus.config import parse
from prunus.console import Console
from prunus.errors import PrunusError, RecipeError
from prunus.models.bits import frozen_bytes
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.training import plan as training_plan
from prunus.training.plan import check_runtime
from tests.families import make_teacher
from tests.pipeline.recipes import tiny_recipe


@pytest.fixture
def planned(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path):
    def make(model: Path = teacher, **distill) -> Plan:
        recipe = tiny_recipe(model, corpus, held_out)
        recipe |= {"students": {"width": {"prune": {"num_hidden_layers": 1}}}, "correct": {"tokens": 0}}
        recipe["distill"] = {**recipe["distill"], **distill}
        return make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")

    return make


def distillation(plan: Plan):
    return next(step for step in plan.steps if step.name == "width distill")


@pytest.mark.parametrize("bits", [8, 4])
def test_a_plan_shows_the_memory_that_few_bits_save(planned, bits: int) -> None:
    whole, few = planned(), planned(teacher_bits=bits)
    saved = frozen_bytes(whole.teacher, None) - frozen_bytes(whole.teacher, bits)
    matrices = sum(rows * columns for rows, columns in whole.teacher.layer_matrices())
    assert matrices * {8: 2, 4: 2.9}[bits] < saved < matrices * {8: 3, 4: 3.4}[bits]
    costs = [cost_of(distillation(plan), plan) for plan in (whole, few)]
    assert costs[0].memory_bytes - costs[1].memory_bytes == saved
    assert costs[0].flops == costs[1].flops
    assert distillation(whole).fingerprint != distillation(few).fingerprint


def test_results_without_it_keep_their_fingerprint() -> None:
    assert "teacher_bits" not in DistillConfig(tokens=64).identity()
    assert DistillConfig(tokens=64, teacher_bits=8).identity()["teacher_bits"] == 8


def test_what_cannot_be_in_few_bits_is_refused(planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrunusError, match=r"distill.teacher_bits: .*3"):
        planned(teacher_bits=3)
    with pytest.raises(PrunusError, match="teacher_bits: 8 needs a teacher, and loss: cross_entropy has none"):
        planned(teacher_bits=8, loss="cross_entropy", states="none")
    with pytest.raises(PrunusError, match=r"students.width.distill.teacher_bits: 4; not for a mixture of experts"):
        planned(make_teacher(tmp_path / "experts", "mixtral"), teacher_bits=4)
    monkeypatch.setattr(training_plan.distributed, "shards_weights", lambda _: True)
    with pytest.raises(RecipeError, match=r"distill.teacher_bits: 8; not with runtime.shard: true"):
        check_runtime(Runtime(), [DistillConfig(tokens=64, teacher_bits=8)])


@pytest.mark.slow
def test_a_run_distils_from_the_teacher_in_few_bits_and_records_it(planned) -> None:
    found = {}
    for bits in (None, 8, 4):
        plan = planned(teacher_bits=bits)
        run_plan(plan, Console(quiet=True))
        found[bits] = json.loads((distillation(plan).artifact.path / "artifact.json").read_text())
    losses = {bits: record["metrics"]["loss"] for bits, record in found.items()}
    assert losses[8] == pytest.approx(losses[None], rel=0.02)
    assert len(set(losses.values())) == 3
    assert [record["config"].get("teacher_bits") for record in found.values()] == [None, 8, 4]
