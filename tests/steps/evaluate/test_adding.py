"""The examples of docs/evaluate.md, "Adding a task, adding a skill": what they say is all that is needed."""

import json
import re
from pathlib import Path

import pytest

from prunus.inference.answers import Answer
from prunus.steps.evaluate import tasks
from prunus.steps.evaluate.check import check_tasks
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.cost import task_costs
from prunus.steps.evaluate.items import read_items
from prunus.steps.evaluate.scoring import score
from prunus.steps.evaluate.tasks import HARNESS, HarnessTask, base_tasks
from prunus.verify.reward import reward
from prunus.verify.skills import SKILLS

PAGE = (Path(__file__).parents[3] / "docs" / "evaluate.md").read_text()


@pytest.fixture
def examples() -> tuple[str, str]:
    """The task's line and the skill's file, as the page has them."""
    section = PAGE.split("## Adding a task, adding a skill")[1].split("\n## ")[0]
    task, skill = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return task, skill


def line(text: str) -> dict[str, HarnessTask]:
    """An entry of the table, as it is read there."""
    return eval(f"{{{text}}}", vars(tasks))


def test_a_task_is_a_line(examples: tuple[str, str], tmp_path: Path, monkeypatch) -> None:
    base = base_tasks(run_code=True)
    ((name, task),) = line(examples[0]).items()
    assert name not in HARNESS
    monkeypatch.setitem(HARNESS, name, task)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": "x" * 400, "passage": "y", "label": 1}) + "\n" for _ in range(3)))
    config = EvaluateConfig(tasks={name: str(data)})
    monkeypatch.setattr("prunus.steps.evaluate.check._check_known", lambda *_: None)  # with the harness or without
    check_tasks(config)
    assert task_costs(config)[name].items == 3
    assert task_costs(config)[name].tokens >= 3 * task.contexts * 100
    assert base_tasks(run_code=True) == base


def test_a_skill_is_a_file(examples: tuple[str, str], tmp_path: Path, monkeypatch) -> None:
    names: dict = {}
    exec(examples[1], names)
    skill = names["SKILL"]
    assert skill.name not in SKILLS
    monkeypatch.setitem(SKILLS, skill.name, skill)
    data = tmp_path / "items.jsonl"
    rows = [{"messages": [{"role": "user", "content": "Two and two?"}], "check": {"number": 4}} for _ in range(2)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EvaluateConfig(tasks={skill.name: str(data)})
    check_tasks(config)
    assert config.converses
    item, _ = read_items(config.tasks[skill.name], skill.name, "x")
    for text, right in (("2 and 2 are 4.", 1), ("4 are 5", 0), ("Four.", 0)):
        found = score(item, skill.name, [[Answer([1], text, "stop")]], "x")
        assert found[skill.first[0]] == (right, 1)
        assert reward(text, {"number": 4}, (), "x") == right


def test_every_skill_and_key_is_in_the_docs() -> None:
    for skill in SKILLS.values():
        assert f"| `{skill.name}` | " in PAGE
        assert all(f"`{key}`" in PAGE for key in skill.keys)


def test_the_definitions_are_where_the_harness_has_them(examples: tuple[str, str]) -> None:
    lm_eval = pytest.importorskip("lm_eval.tasks")
    for name, task in {**HARNESS, **line(examples[0])}.items():
        if task.definition:
            assert list(Path(lm_eval.__file__).parent.glob(task.definition.format(part="*"))), name
