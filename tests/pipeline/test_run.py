"""Whole runs of a tiny recipe: what they leave, what they skip, and what a kill costs them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from prunus.config import parse
from prunus.console import Console
from prunus.errors import ArtifactError, TrainingError
from prunus.graph.locks import lock_run
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.records import load_run
from prunus.report.table import comparison
from tests.families import make_teacher
from tests.pipeline.recipes import tiny_recipe, write
from tests.processes import Command, prunus
from tests.tiny import load, make_model

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
STEPS = 100


def carry_out(recipe: dict, root: Path) -> Plan:
    plan = make_plan(parse(Recipe, recipe, "test"), root)
    run_plan(plan, QUIET)
    return plan


def folder(plan: Plan, name: str) -> Path:
    return next(step.artifact.path for step in plan.steps if step.name == name)


@pytest.fixture(scope="module")
def done(teacher, corpus, held_out, tmp_path_factory) -> Plan:
    return carry_out(tiny_recipe(teacher, corpus, held_out), tmp_path_factory.mktemp("done") / "run")


def test_every_step_leaves_a_record(done: Plan) -> None:
    for step in done.steps:
        record = json.loads((step.artifact.path / "artifact.json").read_text())
        assert record["key"] == step.artifact.key
        assert record["config"] == json.loads(json.dumps(step.config.identity()))
        assert record["seconds"] >= 0
        assert record["peak_memory_bytes"]["process"] > 1_000_000
        assert record["versions"]["torch"] == torch.__version__
        assert record["metrics"]
    assert not list(done.root.rglob("*.partial"))
    assert not list(done.root.rglob("checkpoints"))


def fields(value: Any) -> Any:
    """The keys of nested records, without names that the run chose."""
    if isinstance(value, dict):
        return {key: fields(item) for key, item in sorted(value.items())}
    return [fields(value[0])] if isinstance(value, list) and value else None


def test_records_have_the_fields_that_scripts_read(done: Plan) -> None:
    """A change is one for everyone who reads a run's folder; `PRUNUS_RENEW=1` writes the file anew."""
    own = ("config", "inputs", "files", "versions", "peak_memory_bytes")
    found: dict[str, Any] = {"run.json": sorted(json.loads((done.root / "run.json").read_text()))}
    for step in done.steps:
        path = step.artifact.path
        record = {
            key: value for key, value in json.loads((path / "artifact.json").read_text()).items() if key not in own
        }
        found.setdefault(f"{step.kind}/artifact.json", {**fields(record), **dict.fromkeys(own)})
        for file in sorted(path.glob("*.json")):
            if file.name in ("results.json", "scores.json", "kept.json"):
                found.setdefault(f"{step.kind}/{file.name}", fields(json.loads(file.read_text())))
    golden = Path(__file__).parents[1] / "golden" / "fields.json"
    if os.environ.get("PRUNUS_RENEW"):
        golden.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert json.loads(golden.read_text()) == found


def test_students_reload_in_a_fresh_process_with_the_same_logits(done: Plan, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "out, *folders = sys.argv[1:]\n"
        "models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]\n"
        "for folder in folders: AutoTokenizer.from_pretrained(folder)\n"
        "assert 'prunus' not in sys.modules\n"
        "torch.save([model(torch.arange(3, 67)[None]).logits for model in models], out)"
    )
    paths = [folder(done, f"{student} distill") for student in ("width", "depth", "scratch")]
    subprocess.run([sys.executable, "-c", code, tmp_path / "logits", *paths], check=True)
    for path, logits in zip(paths, torch.load(tmp_path / "logits"), strict=True):
        record = json.loads((path / "artifact.json").read_text())
        assert record["metrics"]["reload_difference"] == 0.0  # the model in memory against the one reopened
        assert torch.equal(logits, load(path)(torch.arange(3, 67)[None]).logits)


def test_training_has_learnt_something(done: Plan) -> None:
    rows = {row[0]: float(row[4].split()[0]) for row in comparison(load_run(done.root))}
    assert rows["teacher, corrected"] < rows["teacher, original"]
    assert rows["width: pruned + distilled"] < rows["width: pruned"]
    assert rows["depth: pruned + distilled"] < rows["depth: pruned"]
    assert "scratch: from scratch + distilled" in rows


def test_metrics_are_kept_by_step(done: Plan) -> None:
    lines = [json.loads(line) for line in (folder(done, "width distill") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert lines[-1]["tokens"] == 1024
    assert lines[-1]["learning_rate"] == pytest.approx(1e-4, rel=0.2)
    assert lines[0]["learning_rate"] < lines[2]["learning_rate"]


def test_again_does_nothing(done: Plan) -> None:
    before = {file: file.stat().st_mtime_ns for file in done.root.rglob("artifact.json")}
    carry_out(done.recipe.model_dump(mode="json"), done.root)
    assert {file: file.stat().st_mtime_ns for file in done.root.rglob("artifact.json")} == before


def test_a_late_change_redoes_only_what_depends_on_it(done: Plan) -> None:
    before = set(done.root.rglob("artifact.json"))
    raw = done.recipe.model_dump(mode="json")
    raw["students"]["depth"]["distill"]["learning_rate"] = 5e-4
    plan = make_plan(parse(Recipe, raw, "test"), done.root)
    states = {step.name: step.state() for step in plan.steps}
    assert {name for name, state in states.items() if state != "done"} == {"depth distill", "depth evaluate"}
    assert states["depth distill"].startswith("stale")
    run_plan(plan, QUIET)
    assert len(set(done.root.rglob("artifact.json")) - before) == 2


def test_the_same_seed_gives_the_same_weights(done: Plan, tmp_path: Path) -> None:
    again = carry_out(done.recipe.model_dump(mode="json"), tmp_path / "again")
    for name in ("teacher correct", "width distill", "scratch distill"):
        weights = [(folder(plan, name) / "model.safetensors").read_bytes() for plan in (done, again)]
        assert weights[0] == weights[1], name


def test_a_run_killed_in_training_resumes_and_ends_with_the_same_bits(teacher, corpus, held_out, tmp_path) -> None:
    recipe = tiny_recipe(
        teacher,
        corpus,
        held_out,
        correct={},
        students={"width": {"prune": {"hidden_size": 16}}},
        distill={"tokens": 64 * STEPS, "sequence_length": 16, "batch_size": 4, "warmup_steps": 2},
        runtime={"checkpoint_minutes": 0.0, "device_batch_size": 2},
    )
    file = write(tmp_path / "killed.yaml", recipe)
    root = tmp_path / "run"
    words = ["run", str(file), "--out", str(root)]
    partial = kill_in_training(Command(words), root)
    complete = sorted(int(path.parent.name.split("-")[1]) for path in partial.glob("checkpoints/*/complete"))
    assert complete
    assert complete[-1] < STEPS
    again = prunus(*words, "--runtime.checkpoint-minutes", 10)
    assert again.returncode == 0, again.stderr
    assert "incomplete" in again.stdout
    steps = [
        json.loads(line)["step"] for line in next(root.glob("width/distill-*/metrics.jsonl")).read_text().splitlines()
    ]
    assert steps == sorted(set(steps))
    whole = carry_out({**recipe, "runtime": {"device_batch_size": 2}}, tmp_path / "whole")
    killed = load_file(next(root.glob("width/distill-*/model.safetensors")))
    expected = load_file(folder(whole, "width distill") / "model.safetensors")
    assert killed.keys() == expected.keys()
    for name in expected:
        assert killed[name].tobytes() == expected[name].tobytes(), name


def kill_in_training(command: Command, root: Path) -> Path:
    """SIGKILL the process once distillation has some checkpoints behind it. Returns what it leaves."""
    (process,) = command.processes
    while process.is_alive():
        found = list(root.glob("width/distill-*.partial/checkpoints/checkpoint-*/complete"))
        if any(int(path.parent.name.split("-")[1]) >= STEPS // 5 for path in found):
            process.kill()
            command.wait()
            return next(root.glob("width/distill-*.partial"))
        time.sleep(0.02)
    pytest.fail(f"the run ended before it could be killed: {command.wait().stderr}")


def test_two_runs_do_not_share_a_folder(done: Plan) -> None:
    with lock_run(done.root), pytest.raises(ArtifactError, match="another run uses this folder"):
        run_plan(done, QUIET)


def test_a_loss_that_is_not_finite_stops_training_with_an_error(corpus, held_out, tmp_path) -> None:
    broken = make_model(tmp_path / "broken")
    model = load(broken)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    recipe = tiny_recipe(broken, corpus, held_out)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        carry_out({**recipe, "evaluate": {**recipe["evaluate"], "prompt_count": 0}}, tmp_path / "run")


def test_too_little_text_is_refused(teacher, held_out, tmp_path) -> None:
    (tmp_path / "short.jsonl").write_text('{"text": "plum"}\n')
    recipe = tiny_recipe(teacher, tmp_path / "short.jsonl", held_out)
    with pytest.raises(Exception, match=r"the text is too short: . tokens do not fill one sequence of 16"):
        carry_out(recipe, tmp_path / "run")


def test_a_teacher_from_nothing(corpus, tmp_path) -> None:
    create = {
        "vocab_size": 300,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "tokenizer_documents": 50,
    }
    create |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    recipe = tiny_recipe(
        tmp_path, corpus, corpus, teacher={"create": create}, students={"depth": {"prune": {"num_hidden_layers": 1}}}
    )
    recipe["data"] = {"corpus": [str(corpus)], "held_out_fraction": 0.2}
    plan = carry_out(recipe, tmp_path / "run")
    assert load(folder(plan, "teacher create")).config.vocab_size == 300
    assert plan.teacher.num_hidden_layers == 2
    assert [row[0] for row in comparison(load_run(plan.root))] == [
        "teacher",
        "depth: pruned",
        "depth: pruned + distilled",
    ]


def test_a_teacher_that_grows(teacher, corpus, held_out, tmp_path) -> None:
    grown = {"path": str(teacher), "expand": {"num_hidden_layers": 6, "intermediate_size": 64}}
    students = {"depth": {"prune": {"num_hidden_layers": 3}}}
    plan = carry_out(tiny_recipe(teacher, corpus, held_out, teacher=grown, students=students), tmp_path / "run")
    config = load(folder(plan, "teacher correct")).config
    assert (config.num_hidden_layers, config.intermediate_size) == (6, 64)
    assert load(folder(plan, "depth distill")).config.num_hidden_layers == 3


@pytest.mark.parametrize("loss", ["cross_entropy", "forward_kl"])
def test_a_student_with_a_cut_vocabulary_passes_every_step(corpus, held_out, tmp_path, loss) -> None:
    teacher = make_model(tmp_path / "teacher", vocab_size=310)
    students = {"words": {"prune": {"vocab_size": 280, "hidden_size": 16}, "distill": {"loss": loss}}}
    plan = carry_out(tiny_recipe(teacher, corpus, held_out, correct={}, students=students), tmp_path / "run")
    assert load(folder(plan, "words distill")).config.vocab_size == 280
    rows = {row[0]: row for row in comparison(load_run(plan.root))}
    assert float(rows["words: pruned + distilled"][4].split()[0]) < float(rows["words: pruned"][4].split()[0])
    assert rows["words: pruned + distilled"][8] == ""  # no KL between different vocabularies


@pytest.mark.parametrize("model_type", ["gemma2", "gpt2", "mixtral", "phi3"])
def test_other_families_complete_a_run(model_type, corpus, held_out, tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    shape = {"hidden_size": 24, "num_attention_heads": 3} if model_type == "gpt2" else {"hidden_size": 16}
    students = {"width": {"prune": {**shape, "intermediate_size": 16}}, "depth": {"prune": {"num_hidden_layers": 2}}}
    plan = carry_out(tiny_recipe(teacher, corpus, held_out, correct={}, students=students), tmp_path / "run")
    for student in students:
        path = folder(plan, f"{student} distill")
        assert json.loads((path / "artifact.json").read_text())["metrics"]["reload_difference"] == 0.0
        assert load(path).config.model_type == model_type
    rows = {row[0]: float(row[4].split()[0]) for row in comparison(load_run(plan.root))}
    assert rows["width: pruned + distilled"] < rows["width: pruned"] + 0.01  # a few steps, on random weights
