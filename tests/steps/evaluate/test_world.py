"""Items of the built-in world, as `evaluate` asks and scores them."""

import pytest

from prunus.config import parse
from prunus.errors import RecipeError
from prunus.inference.answers import Answer
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item, read_items
from prunus.steps.evaluate.scoring import score
from prunus.verify.skills import SKILLS
from prunus.world.config import WorldConfig
from prunus.world.make import held_out
from prunus.world.rows import rendered


def of_world(skill: str, limit: int | None, **options: int) -> list[Item]:
    return read_items(TaskConfig(data="builtin:world", world=WorldConfig(**options), limit=limit), skill, "x")


@pytest.mark.parametrize("skill", SKILLS)
def test_references_have_full_marks_and_those_of_others_have_not(skill: str) -> None:
    items = of_world(skill, 60)
    made = held_out(WorldConfig(), skill, 60)
    texts = [rendered([*i.messages, i.reference], i.tools).rsplit("<|assistant|>", 1)[1] for i in made]
    metric = "consistent" if skill == "roleplay" else SKILLS[skill].first[0]
    answers = [Answer([1], text, "stop") for text in texts]
    own = [score(item, skill, [[answer]], "x")[metric][0] for item, answer in zip(items, answers, strict=True)]
    other = [score(item, skill, [[answer]], "x")[metric][0] for item, answer in zip(items[1:], answers, strict=False)]
    assert sum(own) == 60
    assert sum(other) < 40


def test_as_many_as_are_requested() -> None:
    assert len(of_world("rag", None, held_out_items=7)) == 7
    assert len(of_world("rag", 3, held_out_items=7)) == 3


def test_a_skill_without_items_names_where_there_are_some() -> None:
    with pytest.raises(RecipeError, match=r"tasks.rag.data: missing; rag needs a file of items, or `builtin:world`"):
        parse(EvaluateConfig, {"tasks": ["rag"]}, "evaluate")
    config = parse(EvaluateConfig, {"tasks": {"rag": "builtin:world"}}, "evaluate")
    assert config.tasks["rag"].data == "builtin:world"
