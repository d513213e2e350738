"""Recipes with a nest: what is refused, which students come of it, and a whole run."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.config import parse
from prunus.console import Console
from prunus.errors import PrunusError
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.card import write_cards
from prunus.report.records import load_run
from prunus.report.step import write_report
from prunus.report.table import comparison
from tests.pipeline.recipes import tiny_recipe
from tests.tiny import load

NEST: dict[str, Any] = {
    "small": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2},
    "large": {"hidden_size": 24, "intermediate_size": 40},
    "medium": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3},
}

SIZES = ("large", "medium", "small")


def recipe_of(teacher: Path, corpus: Path, held_out: Path, prune: dict[str, Any], **changes: Any) -> dict[str, Any]:
    student = {"prune": prune, **changes.pop("student", {})}
    base = tiny_recipe(teacher, corpus, held_out, students={"family": student}, correct={"tokens": 0})
    return {**base, **changes}


def plan_of(recipe: dict[str, Any], root: Path) -> Plan:
    return make_plan(parse(Recipe, recipe, "test"), root)


@pytest.fixture(scope="module")
def done(teacher, corpus, held_out, tmp_path_factory) -> Plan:
    recipe = recipe_of(teacher, corpus, held_out, {"nest": NEST}, export={"formats": ["gguf-f16"]})
    plan = plan_of(recipe, tmp_path_factory.mktemp("nest") / "run")
    run_plan(plan, Console(quiet=True))
    return plan


@pytest.mark.slow
def test_every_size_becomes_a_student(done: Plan) -> None:
    names = [step.name for step in done.steps if step.subject.startswith("family")]
    assert names == [
        "family prune",
        "family distill",
        *(f"family-{size} {label}" for size in SIZES for label in ("cutout", "evaluate", "export")),
    ]
    assert done.students["family"] == done.students["family-large"]
    for size, options in NEST.items():
        step = next(step for step in done.steps if step.name == f"family-{size} cutout")
        config = load(step.artifact.path).config
        assert all(getattr(config, name) == value for name, value in options.items())
    prune = next(step for step in done.steps if step.name == "family prune")
    assert prune.artifact.record is not None
    assert {"small_kl", "medium_kl", "kl"} <= prune.artifact.record["metrics"].keys()


@pytest.mark.slow
def test_report_and_cards_name_the_sizes(done: Plan) -> None:
    run = load_run(done.root)
    rows = [row[0] for row in comparison(run)]
    assert rows == [
        "teacher",
        *(f"family-{size}: pruned, in a nest + distilled" for size in SIZES),
    ]
    assert {row[3] for row in comparison(run)[1:]} == {"1.02k"}
    cards = {card.parent.parent.name: card.read_text() for card in write_cards(done.root)}
    assert cards.keys() == {"family", "family-large", "family-medium", "family-small"}
    assert "in a nest of 3 sizes that share its weights, then distilled on" in cards["family-small"]
    assert "cut out of the nest" in cards["family-small"]
    assert all(f"family-{size}:" in cards["family"] for size in NEST)
    assert "family-small" in write_report(done.root, done.root / "report.html").read_text()


@pytest.mark.slow
def test_sizes_are_aligned_after_they_are_cut_out(teacher, corpus, held_out, tmp_path) -> None:
    stage = {"method": "sft", "data": [{"path": "builtin:world", "name": "chat", "world": {"conversations": 20}}]}
    recipe = recipe_of(teacher, corpus, held_out, {"nest": NEST}, align=[stage])
    recipe["data"]["template"] = "builtin:plain"
    labels = [step.label.split("-")[0] for step in plan_of(recipe, tmp_path).steps if step.subject == "family-small"]
    assert labels[:2] == ["cutout", "evaluate"]
    assert labels[-2:] == ["align", "evaluate"]


def test_every_size_is_trained_for_its_quantised_file_by_itself(teacher, corpus, held_out, tmp_path) -> None:
    qat = {"quantise": "gguf-q8_0", "tokens": 128, "batch_size": 2, "sequence_length": 16}
    recipe = recipe_of(teacher, corpus, held_out, {"nest": NEST}, qat=qat, export={"formats": ["gguf-q8_0"]})
    plan = plan_of(recipe, tmp_path)
    for size in SIZES:
        labels = [step.label for step in plan.steps if step.subject == f"family-{size}"]
        assert labels == ["cutout", "evaluate", "qat", "export"]
    recipe["qat"]["nest"] = {"schedule": "all"}
    with pytest.raises(PrunusError, match="each size of a nest is trained for its file by itself"):
        plan_of(recipe, tmp_path)


def test_the_cost_of_the_smaller_sizes_is_counted(teacher, corpus, held_out, tmp_path) -> None:
    costs = []
    for schedule in ("alternate", "all"):
        changes = {"student": {"distill": {"nest": {"schedule": schedule}}}}
        plan = plan_of(recipe_of(teacher, corpus, held_out, {"nest": NEST}, **changes), tmp_path)
        costs.append(cost_of(next(step for step in plan.steps if step.label == "distill"), plan).flops)
    alone = plan_of(recipe_of(teacher, corpus, held_out, NEST["large"]), tmp_path)
    costs.append(cost_of(next(step for step in alone.steps if step.label == "distill"), alone).flops)
    assert costs[2] < costs[0] < costs[1] < 3 * costs[2]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an axis": (
        {"nest": {**NEST, "small": {"hidden_size": 16, "intermediate_size": 40}}},
        {},
        r"students.family.prune.nest: small does not nest in medium: .* is 4 in small and 3 in medium",
    ),
    "one shape": ({"nest": {"small": NEST["small"]}}, {}, "small is the only size; give at least two"),
    "the same shape": ({"nest": {"a": NEST["small"], "b": NEST["small"]}}, {}, "are the same shape"),
    "a vocabulary": (
        {"nest": {**NEST, "small": {"vocab_size": 200}}},
        {},
        "vocab_size: 200; all sizes of a nest have one vocabulary",
    ),
    "a size beside it": ({"nest": NEST, "hidden_size": 16}, {}, "nest: cannot be combined with hidden_size"),
    "random weights": ({"nest": NEST, "init": "random"}, {}, "nest: cannot be combined with init"),
    "a fold of layers": (
        {"nest": NEST, "heal": {"depth": "linear"}},
        {},
        "heal.depth: it fits one size; with nest, allowed: none",
    ),
    "layers by refit": ({"nest": NEST, "importance": {"layers": "refit"}}, {}, "refit ranks layers for one size"),
    "sampling": (
        {"nest": NEST},
        {"student": {"distill": {"data": "student", "prompt_tokens": 4}}},
        "data: student: not for a nest",
    ),
    "sharding": ({"nest": NEST}, {"runtime": {"deepspeed": "x.json"}}, "deepspeed"),
    "options without a nest": (
        NEST["small"],
        {"student": {"distill": {"nest": {"schedule": "all"}}}},
        "students.family.distill.nest: the student has one size",
    ),
    "a larger size": ({"nest": {**NEST, "small": {"hidden_size": 64}}}, {}, "prune.nest.small.hidden_size: 64 is more"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_nest_is_refused(teacher, corpus, held_out, tmp_path, what) -> None:
    prune, changes, message = REFUSED[what]
    with pytest.raises(PrunusError, match=message):
        plan_of(recipe_of(teacher, corpus, held_out, prune, **changes), tmp_path)


def test_names_that_would_be_taken_twice_and_merges_of_nests_are_refused(teacher, corpus, held_out, tmp_path) -> None:
    recipe = recipe_of(teacher, corpus, held_out, {"nest": NEST})
    taken = {**recipe, "students": {**recipe["students"], "family-small": {"prune": NEST["small"]}}}
    with pytest.raises(PrunusError, match="small becomes the student 'family-small'"):
        plan_of(taken, tmp_path)
    merged = {**recipe, "students": {**recipe["students"], "m": {"merge": {"of": ["family", "teacher"]}}}}
    with pytest.raises(PrunusError, match="'family' is a nest, which has several sizes"):
        plan_of(merged, tmp_path)
    alike = {**recipe, "students": {**recipe["students"], "m": {"prune": {"like": "family"}}}}
    with pytest.raises(PrunusError, match="'family' is not another student with sizes"):
        plan_of(alike, tmp_path)


def test_options_of_a_nest_change_no_other_fingerprint(teacher, corpus, held_out, tmp_path) -> None:
    plan = plan_of(recipe_of(teacher, corpus, held_out, NEST["small"]), tmp_path)
    for step in plan.steps:
        if step.label in ("prune", "distill"):
            assert "nest" not in json.dumps(step.config.identity())
