"""The shapes of a budget, against looking at every combination."""

from itertools import product

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from prunus.errors import RecipeError
from prunus.models.families.table import family_of
from prunus.models.shape import Shape
from prunus.pipeline.search.config import SearchConfig
from prunus.pipeline.search.space import multiple_of, name_of, sizes_of
from tests.families import SPECIAL, config_of
from tests.pipeline.search.making import shape_of, space_of
from tests.tiny import SMALL


@pytest.mark.parametrize("budget", ["non-embedding <= 50%", "parameters <= 12k, decode <= 3 ms"])
def test_all_shapes_in_the_budget_are_found_and_no_other(budget: str) -> None:
    space = space_of(budget, within=0.05, multiples={"hidden_size": 8, "intermediate_size": 8})
    expected = set()
    for layers, hidden, mlp, per_group, groups in product(*space.sizes.values()):
        shape = space.teacher.with_dimensions(
            {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": mlp,
             "num_attention_heads": per_group * groups, "num_key_value_heads": groups}
        )  # fmt: skip
        fill = max(space.meter.figure(limit, shape) / space.meter.bound(limit) for limit in space.budget)
        if 0.95 <= fill <= 1 and loads(shape):
            expected.add(name_of(shape))
    found = [name_of(shape) for shape in space.all()]
    assert len(found) == len(set(found)) > 2
    assert set(found) == expected


def loads(shape: Shape) -> bool:
    """Whether transformers builds it."""
    with torch.device("meta"):
        try:
            LlamaForCausalLM(LlamaConfig(**{**SMALL, **shape.dimensions()}))
        except (StrictDataclassClassValidationError, ValueError):
            return False
    return True


@pytest.mark.parametrize("model_type", SPECIAL)
def test_every_shape_loads(model_type: str) -> None:
    raw = config_of(model_type).to_dict()
    teacher = Shape.from_config(raw, family_of(raw, "test"), "test")
    shapes = space_of("non-embedding <= 60%", teacher, within=0.5, least=0.2).all()
    assert len(shapes) > 3
    for shape in shapes:
        shape.check_loadable("test")
        group = teacher.num_attention_heads // teacher.num_key_value_heads
        assert shape.num_attention_heads % shape.num_key_value_heads == 0
        assert shape.num_attention_heads // shape.num_key_value_heads <= group


def test_a_budget_that_nothing_meets_names_the_nearest_and_its_figures() -> None:
    with pytest.raises(
        RecipeError, match=r"search\.budget: no shape .* nearest above is 1l-8h-12m-1a-1k: parameters 2.84k of 100"
    ):
        space_of("parameters <= 100").all()
    with pytest.raises(RecipeError, match="the teacher already meets it"):
        space_of("parameters <= 1M").all()
    with pytest.raises(RecipeError, match=r"nearest above is .*; the nearest below is .* a larger `within`"):
        space_of("parameters <= 12_001", within=1e-5, axes=["hidden_size"]).all()


def test_sizes_are_of_what_they_are_multiples_of() -> None:
    big = shape_of(
        hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, head_dim=128
    )
    sizes = sizes_of(SearchConfig(budget="parameters <= 1"), big, 256)
    assert sizes["hidden_size"][-1] == 4096
    assert all(size % 256 == 0 for axis in ("hidden_size", "intermediate_size") for size in sizes[axis])
    own = sizes_of(SearchConfig(budget="parameters <= 1", multiples={"intermediate_size": 100}, least=0.9), big, 256)
    assert own["intermediate_size"] == [*range(13000, 14336, 100), 14336]
    assert multiple_of(64, 1) == multiple_of(64, 256) == 8
    assert multiple_of(1024, 256) == 256
    assert multiple_of(640, 32) == 32
    assert multiple_of(640, 1) == 64
