"""What is said of a family is what a plan allows, and what docs/families.md says."""

from pathlib import Path

import pytest

from prunus.errors import ShapeError
from prunus.models.families.table import FAMILIES, family_of
from prunus.models.overview import cells, markdown, overview
from prunus.models.shape import Shape
from prunus.steps.prune.config import PruneConfig
from tests.families import config_of

ROWS = {row["model_type"]: row for row in overview()}


def shape_of(model_type: str, **changes: object) -> Shape:
    config = {**config_of(model_type).to_dict(), **changes}
    return Shape.from_config(config, family_of(config, "test"), "test")


def allowed(shape: Shape, **options: object) -> bool:
    try:
        PruneConfig.model_validate(options).target(shape, "prune")
    except ShapeError:
        return False
    return True


def test_the_page_has_the_table() -> None:
    assert markdown() in (Path(__file__).parents[2] / "docs/families.md").read_text()


def test_every_family_is_in_it_once() -> None:
    assert sorted(ROWS) == sorted(FAMILIES)
    assert len({row["family"] for row in ROWS.values()}) == len({row["models"] for row in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_cut_is_what_a_plan_allows(model_type: str) -> None:
    shape, row = shape_of(model_type), ROWS[model_type]
    whole = {"hidden_size": 16, "num_attention_heads": shape.num_attention_heads} if shape.family.square else {}
    if whole and shape.num_key_value_heads == shape.num_attention_heads:
        whole["num_key_value_heads"] = shape.num_key_value_heads
    assert allowed(shape, head_dim=4, **whole) == ("head_dim" in row["cuts"])
    assert allowed(shape, num_attention_heads=2) != row["heads_with_hidden_size"]
    assert allowed(shape, num_experts=4) == ("num_experts" in row["cuts"])
    assert ("head_dim" in cells(row)[3]) == ("head_dim" not in row["cuts"])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_rotated_and_refitted_is_what_a_plan_allows(model_type: str) -> None:
    row = ROWS[model_type]
    found = {}
    for tied in (False, True):
        shape = shape_of(model_type, tie_word_embeddings=tied)
        size = 16 if shape.family.square else 24
        options = {"hidden_size": size, **({"num_attention_heads": 2} if shape.family.square else {})}
        if shape.family.square and shape.num_key_value_heads == shape.num_attention_heads:
            options["num_key_value_heads"] = 2
        found[tied] = allowed(shape, method="rotate", **options)
        assert allowed(shape, **options)
        assert allowed(shape, heal={"refit": "all"}, intermediate_size=8) == row["refit"]
    assert (
        found
        == {
            "always": {False: True, True: True},
            "untied": {False: True, True: False},
            "never": {False: False, True: False},
        }[row["rotation"]]
    )
