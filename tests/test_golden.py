"""What users lean on, frozen: options and their help, the flags of every command, and the names of results.

A change here is a change for everyone who has written a recipe, a script or a run's folder. If it is meant, renew the
files with

    HF_HUB_OFFLINE=1 python -m tests.test_golden
"""

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pydantic

from prunus.cli.main import COMMANDS, main
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "docs" / "recipe.schema.json"
FLAGS = Path(__file__).parent / "golden" / "flags.json"
NAMES = Path(__file__).parent / "golden" / "names.json"
RECIPES = ("quickstart", "sapling", "llama-3.1-minitron-4b")  # of which nothing but the project itself is read


def options() -> dict[str, Any]:
    return Recipe.model_json_schema()


def flags() -> dict[str, list[str]]:
    """The flags that each command's help has."""
    found = {}
    for command in COMMANDS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([command, "--help"])
        found[command] = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", out.getvalue())))
    return found


def names() -> dict[str, list[str]]:
    """The folders of every step, whose names are digests of all that decides a result."""
    found = {}
    where = Path.cwd()
    os.chdir(ROOT)  # recipes name files beside them
    try:
        for name in RECIPES:
            plan = make_plan(load_recipe(Path("recipes") / f"{name}.yaml"), Path("runs") / name, preview=True)
            found[name] = [f"{step.subject} {step.artifact.path.name}" for step in plan.steps]
    finally:
        os.chdir(where)
    return found


def schema(node: Any) -> Any:
    """A schema without what pydantic's versions write differently for the same options."""
    if isinstance(node, list):
        return [schema(part) for part in node]
    if not isinstance(node, dict):
        return node
    left_out = {"enum"} if "const" in node else set()  # before 2.10 both
    left_out |= {"propertyNames"} if pydantic.VERSION.startswith("2.9.") else set()  # from 2.10 on
    return {key: schema(part) for key, part in node.items() if key not in left_out}


def test_the_options_are_those_that_are_published() -> None:
    assert schema(json.loads(SCHEMA.read_text())) == schema(options())


def test_commands_have_the_flags_that_they_had() -> None:
    assert json.loads(FLAGS.read_text()) == flags()


def test_results_are_called_what_they_were_called() -> None:
    assert json.loads(NAMES.read_text()) == names()


if __name__ == "__main__":
    for file, content in ((SCHEMA, options()), (FLAGS, flags()), (NAMES, names())):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
