"""Whatever a YAML file holds is a recipe or a `RecipeError`: values of every type at every place of a recipe."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prunus.config import parse
from prunus.errors import RecipeError
from prunus.pipeline.recipe import Recipe
from prunus.yaml12 import dump_yaml, parse_yaml
from tests.fuzz import fuzz
from tests.pipeline.recipes import tiny_recipe

WHOLE: dict[str, Any] = {
    **tiny_recipe(Path("teacher"), Path("a.jsonl"), Path("b.jsonl")),
    "search": {"budget": "parameters <= 1 M", "text": ["a.jsonl"], "distill": {"tokens": 512}},
    "align": ["sft", {"method": "dpo", "data": ["x.jsonl"]}],
    "generate": {"server": {"url": "http://h/v1", "model": "m"}},
    "export": {"formats": ["gguf-f16"]},
    "runtime": {"device": "cpu"},
}
WHOLE["students"] |= {"m": {"merge": {"of": ["width", "scratch"]}}, "a": {"align": ["sft"]}}
WHOLE["evaluate"] |= {"tasks": {"rag": "builtin:world"}, "judge": {"url": "http://h", "model": "m"}}

WORDS = st.sampled_from(["", "x", "all", "none", "${", "1e-4", "2024-01-01", "search.best", "builtin:world", "\u2028"])
NUMBERS = st.sampled_from([0, -1, 1, 2**63 - 1, 1e308, -1e-308, float("inf"), float("nan"), True])
VALUES = st.recursive(
    st.none() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=3,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a recipe."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


PLACES = [place for place in places(WHOLE) if place]


@fuzz(100)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_is_accepted_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    raw = copy.deepcopy(WHOLE)
    for place, value in changes:
        part: Any = raw
        for key in place[:-1]:
            part = part[key] if isinstance(part, dict) and key in part else None
            if part is None:
                break
        if isinstance(part, dict):
            part[place[-1]] = value
    read = parse_yaml(dump_yaml(raw), RecipeError, "r.yaml")
    try:
        recipe = parse(Recipe, read, "r.yaml")
    except RecipeError as error:
        assert len(str(error)) < 20_000
    else:
        assert recipe.recorded().keys() == Recipe.model_fields.keys()


def test_the_whole_recipe_loads() -> None:
    assert parse(Recipe, WHOLE, "r.yaml").students["m"].merge is not None
