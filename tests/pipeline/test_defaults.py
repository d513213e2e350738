"""Options that a recipe or a command leaves unset get defaults that depend on the tokens and on the models."""

from pathlib import Path
from typing import Any

import pytest

from prunus.cli.main import main
from prunus.config import Config, Size, parse
from prunus.errors import RecipeError
from prunus.files import read_object
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.steps.align.config import AlignConfig
from prunus.steps.correct.config import CorrectConfig
from prunus.steps.distill.config import DistillConfig
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.score.config import ScoreConfig
from tests.tiny import make_model


@pytest.fixture
def bare(corpus: Path, tmp_path: Path):
    """The plan of a recipe that has a teacher, text, a shape and tokens alone."""
    teacher = make_model(tmp_path / "teacher", max_position_embeddings=96)

    def make(students: dict[str, Any], **changes: Any) -> Plan:
        recipe = {"teacher": str(teacher), "data": {"corpus": [str(corpus)]}, "students": students}
        recipe |= {"distill": {"tokens": 20_000}, **changes}
        return make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")

    return make


def options(plan: Plan, name: str) -> Any:
    return next(step.config for step in plan.steps if step.name == name)


def test_a_recipe_of_four_lines_is_a_whole_plan(bare) -> None:
    plan = bare({"width": {"prune": {"intermediate_size": 24, "heal": {"refit": "all"}}}}, correct={"tokens": 9000})
    for name in ("teacher correct", "teacher score", "teacher evaluate", "width distill"):
        assert 2 <= options(plan, name).sequence_length <= 96, name
    heal = options(plan, "width prune").heal
    assert heal.samples * heal.sequence_length >= 32 * 32
    assert options(plan, "teacher score").samples == 64
    distill, correct = options(plan, "width distill"), options(plan, "teacher correct")
    assert distill.steps > 20
    assert distill.resolved_warmup < distill.steps // 10
    assert 0 < correct.learning_rate < distill.learning_rate <= 1e-2


def test_what_is_given_stands(bare) -> None:
    given = {"tokens": 20_000, "sequence_length": 24, "batch_size": 3, "learning_rate": 0.004, "warmup_steps": 7}
    found = options(bare({"width": {"prune": {"intermediate_size": 24}}}, distill=given), "width distill")
    assert {key: getattr(found, key) for key in given} == given
    assert found.min_rate_share == 0.1


def test_rates_follow_the_student(bare) -> None:
    students = {
        "mild": {"prune": {"intermediate_size": 44}},
        "half": {"prune": {"intermediate_size": 16, "num_hidden_layers": 2}},
        "narrow": {"prune": {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}},
        "scratch": {"prune": {"intermediate_size": 44, "init": "random"}},
    }
    plan = bare(students)
    rates = {name: options(plan, f"{name} distill").learning_rate for name in students}
    assert rates["mild"] < rates["half"] == rates["scratch"] <= rates["narrow"]


def test_tokens_that_make_no_step_are_refused(bare) -> None:
    with pytest.raises(RecipeError, match="tokens: 300 are less than one step"):
        bare({"width": {"prune": {"intermediate_size": 24}}}, distill={"tokens": 300, "batch_size": 64})


def test_a_search_is_planned_with_nothing_but_a_budget(bare) -> None:
    search = {"budget": "non-embedding <= 62%", "axes": ["intermediate_size"], "distill": {"tokens": 4000}}
    plan = bare({"best": {"prune": {"shape": "search.best"}}}, search=search)
    distill = options(plan, "search search").distill
    assert distill.sequence_length <= 96
    assert distill.steps > 1


def test_commands_suit_their_model(corpus: Path, tmp_path: Path) -> None:
    teacher = make_model(tmp_path / "teacher", max_position_embeddings=96)
    words = ["score", teacher, "--corpus", corpus, "--out", tmp_path / "scores"]
    assert main([str(word) for word in words]) == 0
    config = read_object(tmp_path / "scores" / "artifact.json", RecipeError)["config"]
    assert (config["samples"], config["sequence_length"]) == (64, 96)


def test_what_is_unset_is_resolved_once_the_size_is_known() -> None:
    config = DistillConfig(tokens=1_000_000, min_learning_rate=0.0)
    assert parse(DistillConfig, config.model_dump(), "again") == config
    first = config.with_defaults(Size(hidden_size=576, context=2048, widest=1536, cut=0.5))
    assert (first.min_rate_share, first.steps) == (0.0, first.tokens // (first.batch_size * first.sequence_length))
    assert first.with_defaults(Size(hidden_size=64, context=32, widest=64)) == first


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (CorrectConfig, {"tokens": 9}),
        (DistillConfig, {"tokens": 9}),
        (ScoreConfig, {}),
        (EvaluateConfig, {}),
        (HealConfig, {}),
        (AlignConfig, {"method": "sft"}),
    ],
)
def test_a_sequence_of_one_token_is_refused_and_0_is_resolved_later(cls: type[Config], given: dict[str, Any]) -> None:
    for length in (1, -2):
        with pytest.raises(RecipeError, match="sequence_length: "):
            parse(cls, {**given, "sequence_length": length}, "x")
    assert parse(cls, given, "x") == parse(cls, {**given, "sequence_length": 0}, "x")
