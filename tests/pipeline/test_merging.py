"""Merged students in a recipe: planned after what they are merged from, done, measured, reported, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunus.config import parse
from prunus.console import Console
from prunus.errors import PrunusError
from prunus.models.folder import ModelFolder
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.card import write_cards
from prunus.report.records import load_run
from prunus.report.step import write_report
from prunus.report.table import comparison
from tests.pipeline.recipes import tiny_recipe
from tests.tiny import WORDS, load

CUT = {"hidden_size": 16, "intermediate_size": 24}


@pytest.fixture(scope="module")
def speaks(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher with a chat template, and conversations with checks beside it."""
    root = tmp_path_factory.mktemp("speaks")
    shutil.copytree(teacher, root / "teacher")
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% endfor %}"
    (root / "teacher" / "chat_template.jinja").write_text(template)
    for name, offset in (("fitness", 0), ("items", 50)):
        rows = [
            {
                "messages": [{"role": "user", "content": f"{word} {number + offset}"}, _said(word)],
                "check": {"answers": [word]},
            }
            for number, word in enumerate(WORDS)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _said(word: str) -> dict[str, str]:
    return {"role": "assistant", "content": word}


@pytest.fixture
def raw(speaks: Path, corpus: Path, held_out: Path):
    def make(merges: dict[str, Any], **changes: Any) -> dict[str, Any]:
        students = {"a": {"prune": CUT}, "b": {"prune": CUT, "distill": {"learning_rate": 3e-3}}}
        students |= {name: {"merge": merge} for name, merge in merges.items()}
        recipe = tiny_recipe(speaks / "teacher", corpus, held_out, students=students, **changes)
        return {**recipe, "correct": {}}

    return make


def evolve(speaks: Path, name: str = "fitness") -> dict[str, Any]:
    return {
        "trials": 5,
        "items": 3,
        "finalists": 1,
        "max_new_tokens": 3,
        "tasks": {"words": str(speaks / f"{name}.jsonl")},
    }


@pytest.mark.slow
def test_a_recipe_merges(raw, speaks: Path, tmp_path: Path) -> None:
    merges = {
        "mean": {"of": ["a", "b"]},
        "ties": {"of": ["a", "b"], "base": "b.pruned", "method": "ties"},
        "deep": {"of": ["a", "mean"], "method": "flow", "flow": {"layers": ["0:0-2", "1:1-3"]}},
        "evolved": {"of": ["a", "b"], "evolve": evolve(speaks)},
    }
    plan = make_plan(parse(Recipe, raw(merges), "test"), tmp_path / "run")
    names = [step.name for step in plan.steps]
    assert names[-8:] == [f"{name} {kind}" for name in merges for kind in ("merge", "evaluate")]
    by_name = {step.name: step for step in plan.steps}
    for kind in ("prune", "evaluate-pruned"):  # the two students are cut alike
        assert by_name[f"a {kind}"].artifact.path == by_name[f"b {kind}"].artifact.path
    assert by_name["a distill"].artifact.path != by_name["b distill"].artifact.path
    assert by_name["ties merge"].inputs["base"] is by_name["b prune"]
    assert by_name["ties merge"].inputs["model_1"] is by_name["b distill"]
    assert plan.students["deep"].num_hidden_layers == 6
    cost = cost_of(by_name["evolved merge"], plan)
    assert cost.tokens == (5 + 1 + 1) * 3 * 3
    run_plan(plan, Console(quiet=True))
    folders = {name: step.artifact.path for name, step in by_name.items()}
    for name in merges:
        ModelFolder(folders[f"{name} merge"]).check()
        assert load(folders[f"{name} merge"]).config.hidden_size == 16
    assert (folders["mean merge"] / "kept.json").is_file()  # both have the same descent
    record = json.loads((folders["evolved merge"] / "artifact.json").read_text())
    journal = (folders["evolved merge"] / "journal.jsonl").read_text().splitlines()
    assert len(journal) == 5 + 1 + 1  # the trials; the start and a finalist once more
    assert record["metrics"]["trials"] == 5
    assert not (folders["evolved merge"] / "checkpoints").exists()
    assert not (folders["evolved merge"] / "trial").exists()
    run = load_run(tmp_path / "run")
    rows = [row[0] for row in comparison(run)]
    assert rows[-4:] == [
        "mean: merged (linear)", "ties: merged (ties)", "deep: merged (flow)", "evolved: merged (linear, evolved)",
    ]  # fmt: skip
    assert "Evolution of evolved" in write_report(tmp_path / "run", tmp_path / "report.html").read_text()
    write_cards(tmp_path / "run")
    card = (folders["evolved merge"] / "README.md").read_text()
    assert "merged (linear, evolved) from a, b" in card
    assert str(speaks) not in card
    again = make_plan(parse(Recipe, raw(merges), "test"), tmp_path / "run")
    assert {step.state() for step in again.steps} == {"done"}


def refused(recipe: dict[str, Any], root: Path) -> str:
    with pytest.raises(PrunusError) as caught:
        make_plan(parse(Recipe, recipe, "test"), root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"of": ["a", "c"]}, "students.m.merge.of.1: 'c' is not a student"),
        ({"of": ["a", "teacher"]}, "model.embed_tokens.weight: (300, 32) and (300, 16)"),
        ({"of": ["a", "b.aligned"]}, "allowed after the name of a student that is cut: pruned, distilled"),
        ({"of": ["a", "m"]}, "m is a merged student that comes after m; list it before m"),
        ({"of": ["a", "b"], "method": "ties"}, "students.m.merge.base: missing"),
        ({"of": ["a"]}, "students.m.merge: 1 model"),
        ({"of": ["a", "b"], "method": "tie"}, "students.m.merge.method"),
        ({"of": ["a", "b"], "evolve": {"trials": 3}}, "students.m.merge.evolve.tasks: missing"),
        ({"of": ["a", "b"], "method": "average", "evolve": {"trials": 3}}, "average has nothing to evolve"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_the_plan(merge: dict, message: str, raw, tmp_path: Path) -> None:
    assert message in refused(raw({"m": merge}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_models_from_elsewhere_are_looked_at_before_any_work(raw, speaks: Path, tmp_path: Path) -> None:
    """The teacher beside a model from a folder: merged where they are alike, refused by tokens where not."""
    recipe = raw({"m": {"of": ["teacher", str(speaks / "teacher")]}})
    plan = make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")
    assert next(step for step in plan.steps if step.name == "m merge").inputs["model_1"].value == speaks / "teacher"
    other = shutil.copytree(speaks / "teacher", tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    recipe["students"]["m"]["merge"]["of"][1] = str(other)
    assert "differ from the teacher's" in refused(recipe, tmp_path / "run")


def test_a_merged_student_is_not_cut(raw, tmp_path: Path) -> None:
    recipe = raw({"m": {"of": ["a", "b"]}})
    recipe["students"]["m"]["prune"] = CUT
    assert "m: prune and merge cannot both be given" in refused(recipe, tmp_path / "run")


def test_fitness_by_what_is_reported_is_refused(raw, speaks: Path, tmp_path: Path) -> None:
    tasks = {"rag": {"data": str(speaks / "items.jsonl"), "limit": 2}}
    rows = [json.loads(line) for line in (speaks / "items.jsonl").read_text().splitlines()]
    items = [{**row, "messages": row["messages"][:1]} for row in rows]
    (speaks / "asked.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    tasks["rag"]["data"] = str(speaks / "asked.jsonl")
    evaluate = {**raw({})["evaluate"], "tasks": tasks}
    merges = {"m": {"of": ["a", "b"], "evolve": evolve(speaks, "items")}}
    recipe = raw(merges, evaluate=evaluate)
    message = refused(recipe, tmp_path / "run")
    assert "students.m.merge.evolve.tasks.words: 2 of 6 conversations are also in `evaluate.tasks`" in message
    merges["m"]["evolve"]["i_am_tuning_on_the_test_set"] = True
    make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")
    shutil.copytree(speaks / "teacher", tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    silent = {**raw({"m": {"of": ["a", "b"], "evolve": evolve(speaks)}}), "teacher": str(tmp_path / "mute")}
    assert "conversations need a chat template" in refused(silent, tmp_path / "run")
