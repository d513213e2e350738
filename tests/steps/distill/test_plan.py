"""A teacher and a student in few bits: what a plan says of it, what is refused, and runs with them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from prunus.cli.render import show_plan
from prunus.config import Size, parse
from prunus.console import Console
from prunus.errors import PrunusError, RecipeError
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.models.bits import frozen_bytes
from prunus.models.folder import ModelFolder
from prunus.pipeline.cutting import between
from prunus.pipeline.estimate import context_of, cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.card import write_cards
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


SIZE = Size(hidden_size=32, context=64, widest=48)
QAT = {"quantise": "gguf-q4_0", "tokens": 256, "sequence_length": 16, "batch_size": 4}


@pytest.fixture
def with_qat(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path):
    """A plan whose student is trained for a quantised file at the end."""

    def make(model: Path = teacher, formats: tuple[str, ...] = ("gguf-q4_0", "gguf-f16"), **changes) -> Plan:
        recipe = tiny_recipe(model, corpus, held_out)
        recipe |= {"students": {"width": {"prune": {"num_hidden_layers": 1}}}, "correct": {"tokens": 0}}
        recipe["export"] = {"formats": list(formats), "check_tokens": 64, "check_length": 16, "new_tokens": 4}
        recipe |= {"qat": {**QAT, **changes.pop("qat", {})}, **changes}
        return make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")

    return make


def step_of(plan: Plan, name: str):
    return next(step for step in plan.steps if step.name == name)


def test_a_phase_for_a_quantised_file_comes_last_and_learns_the_student_itself(with_qat) -> None:
    plan = with_qat()
    own, phase, export = (step_of(plan, f"width {label}") for label in ("distill", "qat", "export"))
    assert phase.inputs["student"] is phase.inputs["teacher"] is own
    assert (export.inputs["model"], export.inputs["trained"]) == (own, phase)
    assert phase.config.learning_rate < own.config.learning_rate
    assert step_of(plan, "width evaluate").inputs["model"] is own
    guided = step_of(with_qat(qat={"teacher": "teacher"}), "width qat")
    assert guided.inputs["teacher"] is not guided.inputs["student"] is not None
    bare = with_qat(qat={"tokens": 0})
    assert [step.name for step in bare.steps if "qat" in step.name] == []
    assert step_of(bare, "width distill").fingerprint == own.fingerprint
    assert "trained" not in step_of(bare, "width export").inputs


def test_the_memory_of_a_phase_is_that_of_two_copies_of_the_student(with_qat) -> None:
    plan = with_qat()
    shape = plan.students["width"]
    context = context_of(step_of(plan, "width qat"), plan)
    found = cost_of(step_of(plan, "width qat"), plan)
    alone = training_plan.training_cost(step_of(plan, "width qat").config, shape, context)
    assert found.memory_bytes == alone.memory_bytes + 4 * shape.parameters + frozen_bytes(shape, None)


def test_a_file_that_cannot_be_trained_for_is_refused(with_qat, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(PrunusError, match=r"qat.quantise: gguf-q8_0 is not among export.formats, gguf-q4_0, gguf-f16"):
        with_qat(qat={"quantise": "gguf-q8_0"})
    with pytest.raises(PrunusError, match=r"quantise: .*gguf-f16"):
        with_qat(qat={"quantise": "gguf-f16"})
    with pytest.raises(PrunusError, match=r"quantise: missing; allowed: gguf-q8_0"):
        with_qat(qat={"quantise": None})
    with pytest.raises(PrunusError, match="quantise: gguf-q4_0: not with lora"):
        with_qat(qat={"lora": 4, "optimizer": "adamw"})
    with pytest.raises(PrunusError, match="states: a student is not compared with its own hidden states"):
        with_qat(qat={"states": "kept"})
    with pytest.raises(PrunusError, match="data and targets: allowed here"):
        with_qat(qat={"data": "teacher"})
    experts = make_teacher(tmp_path / "experts", "mixtral")
    with pytest.raises(PrunusError, match=r"students.width.qat.quantise: gguf-q4_0; not for a mixture of experts"):
        with_qat(experts)
    tied = make_teacher(tmp_path / "tied", "olmo2")
    settings = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))
    tensors = load_file(tied / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "lm_head.weight"}, tied / "model.safetensors", {"format": "pt"})
    with pytest.raises(PrunusError, match=r"ties its LM head .* as Q4_0 and Q8_0; allowed: gguf-q8_0"):
        with_qat(tied)
    with_qat(tied, formats=("gguf-q8_0",), qat={"quantise": "gguf-q8_0"})
    with monkeypatch.context() as patch:
        patch.setattr("prunus.llamacpp.ggml.can_quantise", lambda: False)
        with pytest.raises(PrunusError, match=r"gguf-q4_k_m needs llama.cpp.* here: gguf-q8_0, gguf-q4_0"):
            with_qat(formats=(), qat={"quantise": "gguf-q4_k_m"})
    monkeypatch.setattr(training_plan.distributed, "shards_weights", lambda _: True)
    with pytest.raises(RecipeError, match=r"distill.quantise: gguf-q8_0; not with runtime.shard: true"):
        check_runtime(Runtime(), [DistillConfig(tokens=64, quantise="gguf-q8_0")])


def test_a_plan_says_which_files_a_student_is_not_trained_for(with_qat, capsys) -> None:
    plan = with_qat(qat={"tokens": 0})
    for form, expected in (("gguf-q4_0", True), (None, False)):
        students = {"width": plan.recipe.students["width"].model_copy(deep=True)}
        distill = students["width"].distill.model_copy(update={"quantise": form})
        students["width"] = students["width"].model_copy(update={"distill": distill})
        show_plan(replace(plan, recipe=plan.recipe.model_copy(update={"students": students})), Console())
        said = "distill.quantise: gguf-q4_0 trains for that file; the export also writes gguf-f16"
        assert (said in " ".join(capsys.readouterr().out.split())) == expected


def test_the_cut_between_two_cuts_and_the_search_do_not_train_for_the_file() -> None:
    assert between(64, DistillConfig(tokens=64, quantise="gguf-q4_0").with_defaults(SIZE), "via").quantise is None
    assert "quantise" not in DistillConfig(tokens=64).identity()


@pytest.mark.slow
def test_the_file_is_made_from_the_phases_weights_and_compared_with_the_student(with_qat) -> None:
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    plan = with_qat()
    run_plan(plan, Console(quiet=True))
    phase, export = (step_of(plan, f"width {label}").artifact.path for label in ("qat", "export"))
    found = json.loads((export / "export.json").read_text())
    assert found["gguf-q4_0"]["trained"]
    assert "trained" not in found["gguf-f16"]
    assert found["gguf-f16"]["kl"] < 1e-3 < found["gguf-q4_0"]["kl"], "both compared with the student before the phase"
    for folder, same in ((phase, True), (step_of(plan, "width distill").artifact.path, False)):
        model = ModelFolder(folder)
        again = folder.parent / f"{folder.name}.gguf"
        write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), "gguf-q4_0", again)
        assert (again.read_bytes() == (export / "model-Q4_0.gguf").read_bytes()) == same
    cards = write_cards(plan.root)
    assert phase / "README.md" not in cards
    assert step_of(plan, "width distill").artifact.path / "README.md" in cards
