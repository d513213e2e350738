"""The search in a recipe: what is planned before it has run, what after, what it leaves, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.pipeline.search import workshop
from prunus.report.step import write_report
from prunus.steps.prune.choose import layer_choices
from prunus.steps.prune.config import PruneConfig
from tests.conftest import write_documents
from tests.pipeline.recipes import tiny_recipe, write
from tests.tiny import make_model

QUIET = Console(quiet=True)
SEARCH: dict[str, Any] = {
    "budget": "non-embedding <= 50%",
    "within": 0.1,
    "candidates": 3,
    "generations": 1,
    "rungs": 2,
    "ranking_tokens": 200,
    "distill": {"tokens": 256, "warmup_steps": 1},
}


def recipe_of(teacher: Path, corpus: Path, held_out: Path, **changes: Any) -> dict[str, Any]:
    search = {**SEARCH, **changes.pop("search", {})}
    distill = {"tokens": 128, "warmup_steps": 1}
    students = {"found": {"prune": {"shape": "search.best"}, "distill": distill}}
    return tiny_recipe(teacher, corpus, held_out, **{"correct": {}, "students": students, "search": search, **changes})


def planned(raw: dict[str, Any], root: Path) -> Plan:
    return make_plan(parse(Recipe, raw, "test"), root)


def found_in(plan: Plan) -> dict[str, Any]:
    step = next(step for step in plan.steps if step.kind == "search")
    return json.loads((step.artifact.path / "search.json").read_text())


@pytest.fixture(scope="module")
def done(teacher, corpus, held_out, tmp_path_factory) -> Plan:
    plan = planned(recipe_of(teacher, corpus, held_out), tmp_path_factory.mktemp("search") / "run")
    assert plan.waiting == ("found",)
    assert {step.subject for step in plan.steps} == {"data", "teacher", "search"}
    return run_plan(plan, QUIET)


@pytest.mark.slow
def test_the_winner_is_put_into_the_recipe(done: Plan) -> None:
    found = found_in(done)
    best = found["candidates"][found["best"]["name"]]
    assert done.waiting == ()
    assert done.students["found"].dimensions() == best["dimensions"]
    last = next(step for step in done.steps if step.name == "found distill")
    assert ModelFolder(last.artifact.path).shape.dimensions() == best["dimensions"]
    assert best["figures"]["non-embedding parameters"] <= 0.5 * done.teacher.non_embedding_parameters
    manifest = json.loads((done.root / "run.json").read_text())
    assert manifest["recipe"]["students"]["found"]["prune"]["num_hidden_layers"] == best["cut"]["prune"].get(
        "num_hidden_layers"
    )


@pytest.mark.slow
def test_the_record_is_consistent(done: Plan) -> None:
    found = found_in(done)
    before, first, second = found["order"]
    assert sorted(before) == sorted(first) == sorted(found["candidates"])
    assert set(second) == set(first[:2])  # the better half went on
    assert found["tokens"] == [256, 512]
    losses = {name: [rung["kl"]["value"] for rung in one["rungs"]] for name, one in found["candidates"].items()}
    assert second == sorted(second, key=lambda name: losses[name][1])
    assert found["best"] == {"name": second[0], "loss": losses[second[0]][1], **found["candidates"][second[0]]["cut"]}
    assert found["proportional"] in found["candidates"]
    assert set(found["pareto"]) <= set(first)


@pytest.mark.slow
def test_a_finished_search_deletes_weights_and_keeps_results(done: Plan) -> None:
    assert not list((done.root / "search").rglob("*.safetensors"))
    assert len(list((done.root / "search").rglob("results.json"))) == 3 + 3 + 2  # cut, first rung, second rung


@pytest.mark.slow
def test_again_does_nothing(done: Plan) -> None:
    before = {file: file.stat().st_mtime_ns for file in done.root.rglob("artifact.json")}
    run_plan(planned(recipe_of_plan(done), done.root), QUIET)
    assert {file: file.stat().st_mtime_ns for file in done.root.rglob("artifact.json")} == before


def recipe_of_plan(plan: Plan) -> dict[str, Any]:
    raw = plan.recipe.model_dump(mode="json")
    raw["students"]["found"]["prune"] = {"shape": "search.best", "seed": 3}
    raw["search"]["prune"]["heal"]["samples"] = 0  # as in a recipe: it follows from each student's size
    return raw


@pytest.mark.slow
def test_another_search_makes_another_student_and_nothing_else(done: Plan) -> None:
    names = {step.name: step.fingerprint for step in done.steps}
    raw = recipe_of_plan(done)
    raw["search"]["budget"] = "non-embedding <= 45%"
    plan = planned(raw, done.root)
    changed = {step.name for step in plan.steps if step.fingerprint != names[step.name]}
    assert changed == {"search search"}
    assert plan.waiting == ("found",)  # its steps are not those of the other search's student


@pytest.mark.slow
def test_the_report_shows_it(done: Plan, tmp_path: Path) -> None:
    page = write_report(done.root, tmp_path / "report.html").read_text()
    assert "ranking after each rung" in page
    for name in found_in(done)["candidates"]:
        assert name in page


@pytest.mark.slow
def test_a_killed_search_does_no_candidate_twice(teacher, corpus, held_out, tmp_path, monkeypatch) -> None:
    raw = recipe_of(teacher, corpus, held_out, search={"candidates": 2, "generations": 0})
    done: list[str] = []
    ensure = workshop.ensure

    def dies(step, runtime):
        if len(done) == 3:
            raise KeyboardInterrupt
        ensure(step, runtime)
        done.append(step.name)

    monkeypatch.setattr(workshop, "ensure", dies)
    with pytest.raises(KeyboardInterrupt):
        run_plan(planned(raw, tmp_path / "run"), QUIET)
    monkeypatch.setattr(workshop, "ensure", lambda step, runtime: (done.append(step.name), ensure(step, runtime)))
    found = found_in(run_plan(planned(raw, tmp_path / "run"), QUIET))
    assert len(done) == len(set(done)) == 2 + 2  # each cut and each recovered candidate was measured once
    assert len(found["order"][1]) == 2


@pytest.mark.slow
def test_ways_are_tried_and_taken_up(teacher, corpus, held_out, tmp_path) -> None:
    search = {"ways": ["halfway"], "candidates": 2, "generations": 0, "rungs": 1}
    search["distill"] = {"tokens": 256, "warmup_steps": 1}
    raw = recipe_of(teacher, corpus, held_out, search=search)
    plan = run_plan(planned(raw, tmp_path / "run"), QUIET)
    assert {one["way"] for one in found_in(plan)["candidates"].values()} == {"halfway"}
    own = [step for step in plan.steps if step.subject == "found"]
    assert [step.label for step in own][:4] == ["prune-via", "distill-via", "score-via", "prune"]
    first, last = (json.loads((own[i].artifact.path / "kept.json").read_text()) for i in (0, 3))
    assert set(last["layers"]) <= set(first["layers"])  # the teacher's numbers, and not those of what was cut second
    assert len(last["layers"]) == plan.students["found"].num_hidden_layers


@pytest.mark.slow
def test_several_choices_of_dropped_layers_are_tried(teacher, corpus, held_out, tmp_path) -> None:
    search = {"budget": "non-embedding <= 55%", "axes": ["num_hidden_layers"], "layer_choices": 4}
    search |= {"rungs": 2, "prune": {"importance": {"layers": "lm_loss"}}}
    raw = recipe_of(teacher, corpus, held_out, search=search)
    plan = run_plan(planned(raw, tmp_path / "run"), QUIET)
    found = found_in(plan)
    scores = load_file(next(step for step in plan.steps if step.label == "score").artifact.path / "scores.safetensors")
    choices = layer_choices(scores, PruneConfig(importance={"layers": "lm_loss"}), 2, ModelFolder(teacher).shape)
    dropped = [one["cut"]["prune"].get("drop_layers") for one in found["candidates"].values()]
    assert dropped == [None, *map(list, choices[1:4])]  # the scores choose the first themselves
    assert len({one["before"]["kl"]["value"] for one in found["candidates"].values()}) == len(dropped)
    best = dict(zip(found["candidates"], choices, strict=True))[found["best"]["name"]]
    student = next(step for step in plan.steps if step.name == "found prune").artifact.path
    assert json.loads((student / "kept.json").read_text())["layers"] == [i for i in range(4) if i not in best]


@pytest.mark.slow
def test_a_cut_vocabulary_is_ranked_by_bytes(corpus, held_out, tmp_path) -> None:
    teacher = make_model(tmp_path / "teacher", vocab_size=310)
    search = {
        "budget": "parameters <= 85%",
        "axes": ["vocab_size", "intermediate_size"],
        "rungs": 1,
        "candidates": 2,
        "generations": 0,
    }
    search |= {"least": 0.3, "within": 0.3, "multiples": {"vocab_size": 290, "intermediate_size": 12}}
    raw = recipe_of(teacher, corpus, held_out, search=search)
    plan = run_plan(planned(raw, tmp_path / "run"), QUIET)
    found = found_in(plan)
    assert found["measure"] == "bits_per_byte"
    assert {one["dimensions"]["vocab_size"] for one in found["candidates"].values()} >= {290}


def test_bad_input_ends_before_any_work(teacher, corpus, held_out, tmp_path, capsys) -> None:
    def refused(**changes: Any) -> str:
        file = write(tmp_path / "recipe.yaml", recipe_of(teacher, corpus, held_out, **changes))
        assert main(["plan", str(file), "--out", str(tmp_path / "run")]) == 2
        return capsys.readouterr().err

    assert "nearest above is" in refused(search={"budget": "parameters <= 10"})
    assert "did you mean `q4_k_m`" in refused(search={"budget": "q4_k_n file <= 1 MB"})
    assert "search.budget: missing" in refused(search={"budget": []})
    assert "too (data.held_out.0)" in refused(search={"text": [str(held_out)]})
    both = tmp_path / "both.jsonl"
    own = write_documents(tmp_path / "own.jsonl", 20, seed=9).read_text()
    both.write_text(own + held_out.read_text().splitlines()[7] + "\n")
    assert "share a document" in refused(search={"text": [str(both)]})
    assert "share a document" in refused(
        data={"corpus": [str(held_out)], "held_out": [str(held_out)], "held_out_fraction": 0.3}
    )
    chance = {"layer_choices": 2, "prune": {"importance": {"layers": "random"}}}
    assert "layer_choices: needs scores of layers" in refused(search=chance)
    assert "layer_choices: no layers are dropped" in refused(search={"layer_choices": 2, "axes": ["intermediate_size"]})
    assert "layer_choices: applies to shapes with a single cut" in refused(
        search={"layer_choices": 2, "ways": ["halfway"]}
    )
    assert "search.distill.tokens: missing" in refused(search={"distill": {"warmup_steps": 1}})
    shaped = {"found": {"prune": {"shape": "search.best", "hidden_size": 16}}}
    assert "hidden_size and shape cannot both be given" in refused(students=shaped)
    long = {"found": {"prune": {"shape": "search.best"}, "distill": {"sequence_length": 4096, "tokens": 163_840}}}
    assert "students.found.distill.sequence_length: 4096" in refused(students=long)  # before the search, and not after
    short = {"found": {"prune": {"shape": "search.best"}, "distill": {"batch_size": 9}}}
    assert "less than one step" in refused(students=short, search={"ways": ["halfway"]})
    via = {"d": {"prune": {"num_hidden_layers": 2, "via": {"num_hidden_layers": 3}}}}
    assert "set how many tokens to distil on" in refused(students=via)
    via = {"d": {"prune": {"num_hidden_layers": 2, "via": {"num_hidden_layers": 2, "tokens": 512}}}}
    assert "give one between" in refused(students=via)
    raw = recipe_of(teacher, corpus, held_out)
    del raw["search"]
    assert main(["plan", str(write(tmp_path / "no.yaml", raw))]) == 2
    assert "'search.best' needs a `search` in the recipe" in capsys.readouterr().err


def test_separate_text_leaves_the_corpus_whole(teacher, corpus, held_out, tmp_path) -> None:
    own = write_documents(tmp_path / "own.jsonl", 40, seed=9)
    plan = planned(recipe_of(teacher, corpus, held_out, search={"text": [str(own)]}), tmp_path / "run")
    labels = [step.label for step in plan.steps if step.subject == "data"]
    assert labels == ["corpus", "held_out", "ranking"]
