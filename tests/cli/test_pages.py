"""The pages of `--help` after a recipe, and shorthands for whole sections among the flags."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.commands.plan import Plan
from prunus.cli.commands.run import Run
from prunus.cli.main import main
from prunus.cli.pages import expand_shorthands, own_options, page, shorthands
from prunus.errors import RecipeError
from prunus.pipeline.recipe import Recipe
from prunus.steps.align.config import AlignConfig
from prunus.steps.distill.config import DistillConfig
from prunus.steps.prune.config import PruneConfig

VALUES: dict[str, Any] = {
    "teacher": {"path": "x"},
    "students": {"small-one": {"prune": {"hidden_size": 16}, "distill": {"tokens": 10}}},
    "distill": {"tokens": 10},
    "align": [{"method": "sft"}],
}


def test_the_first_page_names_every_section_and_fits_a_screen() -> None:
    text = page(Recipe, VALUES, "", "prunus run r.yaml")
    assert len(text) < 4000
    for name in Recipe.model_fields:
        assert f"  {name}" in text
    assert "--help students.small-one\n" in text
    assert "--help align.0\n" in text


@pytest.mark.parametrize("name", ["students.small-one.prune", "students.small_one.prune"])
def test_a_section_shows_its_values_and_helps(name: str) -> None:
    text = page(Recipe, VALUES, name, "prunus run r.yaml")
    assert "students.small-one.prune.hidden_size = 16\n      Channels of the residual stream" in text
    assert 'students.small-one.prune.method = "auto"' in text
    assert "--help students.small-one.prune.heal\n" in text


def test_a_section_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean `distill`"):
        page(Recipe, VALUES, "distil", "prunus run r.yaml")


@pytest.mark.parametrize(("name", "one"), [("students", "students.small-one"), ("align", "align.0")])
def test_one_of_several_sections_is_to_be_named(name: str, one: str) -> None:
    with pytest.raises(RecipeError, match=f"--help {name}: has several sections.* {one}$"):
        page(Recipe, VALUES, name, "prunus run r.yaml")


def test_shorthands_are_separated_from_the_flags() -> None:
    flags = [
        "--distill.states",
        "none",
        "--distill.tokens",
        "5",
        "--students.small-one.distill.states=kept",
        "--out",
        "x",
    ]
    found, left = shorthands(Recipe, VALUES, flags)
    assert found == {"distill.states": "none", "students.small-one.distill.states": "kept"}
    assert left == ["--distill.tokens", "5", "--out", "x"]


def test_a_commands_word_becomes_the_options_that_it_stands_for() -> None:
    given = ["--tokens", "5", "--states", "none"]
    assert expand_shorthands(DistillConfig, given) == ["--states.weight", "0.0", "--tokens", "5"]
    found = expand_shorthands(DistillConfig, ["--states=paper"])
    assert "--states.embeddings" in found
    assert found[found.index("--states.projection") + 1] == "learned"
    whole = expand_shorthands(PruneConfig, ["MODEL", "--importance", "random", "--hidden-size", "8"], {"model"})
    assert whole[0] == "MODEL"  # before the flags, the last of which may take in several
    assert whole[-2:] == ["--hidden-size", "8"]
    assert whole[whole.index("--importance.neurons.criterion") + 1] == "random"
    with pytest.raises(RecipeError, match="^--states: 'some'; allowed: none, kept, paper"):
        expand_shorthands(DistillConfig, ["--states", "some"])


def test_a_flag_of_a_command_is_no_section() -> None:
    given = ["--method", "sft", "--data", "a.jsonl", "b.jsonl", "--guide", "x"]
    assert shorthands(AlignConfig, {}, given, {"data"}) == ({"guide": "x"}, given[:-2])


def test_a_shorthand_for_a_section_reaches_its_subsections(teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    options = ["--importance", "random", "--num-hidden-layers", "2", "--out", str(out)]
    assert main(["prune", str(teacher), *options]) == 0
    importance = json.loads((out / "artifact.json").read_text())["config"]["importance"]
    assert importance["neurons"]["criterion"] == importance["layers"] == "random"


def test_the_help_of_a_command_lists_its_own_options() -> None:
    """Those that are no part of the recipe; `plan` never runs, so it takes no --dry-run."""
    texts = {"run": own_options(Run), "plan": own_options(Plan)}
    own = {name: re.findall(r"^  --(\S+)$", text, re.MULTILINE) for name, text in texts.items()}
    assert own == {"run": ["out", "dry-run"], "plan": ["out", "memory"]}
    assert "Folder of the run. If unset" in texts["plan"]
