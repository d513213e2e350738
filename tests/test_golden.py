"""What users lean on, frozen: the recipe's options, their defaults and their help.

A change here is a change for everyone who has written a recipe. If it is meant, renew the file with

    python -m tests.test_golden
"""

import json
from pathlib import Path
from typing import Any

from prunus.pipeline.recipe import Recipe

SCHEMA = Path(__file__).parents[1] / "docs" / "recipe.schema.json"


def current() -> dict[str, Any]:
    return Recipe.model_json_schema()


def test_the_options_are_those_that_are_published() -> None:
    assert json.loads(SCHEMA.read_text()) == current()


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(current(), indent=2, ensure_ascii=False) + "\n")
