"""The printed plan of a recipe with two students of the same shape and the same alignment."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from prunus.cli.render import show_plan
from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from tests.pipeline.recipes import tiny_recipe


@pytest.fixture
def shown(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> str:
    world = {"path": "builtin:world", "name": "chat", "world": {"conversations": 20}}
    stage = {"method": "sft", "data": [world], "sequence_length": 64, "longer": "drop", "batch_size": 2}
    student = {"prune": {"num_hidden_layers": 2}, "align": [stage]}
    recipe = tiny_recipe(
        teacher,
        corpus,
        held_out,
        students={"a": student, "b": {**student, "align": [stage, stage]}, "c": {"prune": {"num_hidden_layers": 3}}},
        export={"formats": ["gguf-q4_k_m"]},
    )
    recipe["data"]["template"] = "builtin:plain"
    output = io.StringIO()
    show_plan(make_plan(parse(Recipe, recipe, "test"), tmp_path / "run"), Console(file=output))
    return output.getvalue()


def test_a_shared_source_is_previewed_once(shown: str) -> None:
    assert shown.count("as the model reads it") == 1


def test_a_shared_step_is_listed_once_among_the_training_steps(shown: str) -> None:
    table = shown.partition("Training\n")[2].partition("Shapes\n")[0]
    assert "a distill" in table
    assert "b distill" not in table


def test_students_of_one_shape_share_a_warning(shown: str) -> None:
    assert "students.a, b, c: rows of" in shown
