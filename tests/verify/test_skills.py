"""What the table of skills says of each, held against what its scorer gives."""

from pathlib import Path

import pytest

from prunus.verify import skills
from prunus.verify.skill import GRADE, SHARE, Check
from prunus.verify.skills import SKILLS

FUNCTION = {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}
RIGHT: dict[str, tuple[str, Check]] = {
    "instruction_following": ("plums", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}),
    "rag": ("Jan Hus", {"answers": ["Jan Hus"]}),
    "function_calling": ("f(x=1)", {"calls": [{"f": {"x": [1]}}]}),
    "roleplay": ("I am Jan, well", {"facts": ["Jan"], "contradictions": ["Petr"], "manner": ["ends with", "well"]}),
}
"""A right answer and its check, by skill."""


def test_every_skill_is_in_the_table_by_the_name_of_its_file() -> None:
    files = Path(str(skills.__file__)).parent.glob("*.py")
    assert sorted(SKILLS) == sorted(file.stem for file in files if file.stem != "__init__")


@pytest.mark.parametrize("name", SKILLS)
def test_the_metrics_are_those_of_the_scorer(name: str) -> None:
    skill, (answer, check) = SKILLS[name], RIGHT[name]
    scores = skill.score(answer, check, [FUNCTION])
    assert list(scores) == [metric for metric in skill.metrics if not metric.startswith("judge")]
    assert {skill.binary, *skill.first} <= skill.metrics.keys()
    assert {metric for metric, unit in skill.metrics.items() if unit == GRADE} == ({"judge"} if skill.judged else set())
    assert set(skill.metrics.values()) <= {GRADE, SHARE}


@pytest.mark.parametrize("name", SKILLS)
def test_a_right_answer_has_full_marks_and_the_full_reward_and_a_wrong_one_neither(name: str) -> None:
    skill, (answer, check) = SKILLS[name], RIGHT[name]
    for text, right in ((answer, True), ("Petr, or so", False)):
        scores = skill.score(text, check, [FUNCTION])
        first = next(metric for metric in skill.first if metric in scores)
        assert (scores[first] == (1, 1)) == (scores[skill.binary] == (1, 1)) == right
        assert (skill.reward(scores, text, check) == 1) == right


def test_no_two_skills_have_a_key_in_common() -> None:
    keys = [key for skill in SKILLS.values() for key in skill.keys]
    assert len(keys) == len(set(keys))
