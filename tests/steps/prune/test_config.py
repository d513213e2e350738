import pytest
from pydantic import ValidationError

from prunus.errors import ShapeError
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.steps.prune.config import PruneConfig
from tests.tiny import SMALL

TEACHER = Shape.from_config(SMALL, LLAMA, "test")  # 4 layers, hidden 32, MLP 48, 8 heads over 4 KV heads


def target(**options) -> Shape:
    return PruneConfig(**options).target(TEACHER, "prune")


def test_unset_sizes_are_the_teachers() -> None:
    assert target() == TEACHER
    assert target(hidden_size=16).intermediate_size == 48


def test_query_heads_are_cut_with_their_kv_heads() -> None:
    assert target(num_key_value_heads=2).num_attention_heads == 4
    assert target(num_attention_heads=4).num_key_value_heads == 4
    assert target(num_attention_heads=2, num_key_value_heads=2).num_attention_heads == 2


def test_layers_by_number() -> None:
    assert target(drop_layers=(2, 1)).num_hidden_layers == 2
    assert PruneConfig(drop_layers=(2, 1)).drop_layers == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 33}, r"hidden_size: 33 is more than the teacher's 32"),
        ({"hidden_size": 20}, r"hidden_size: 20 is not a multiple of num_attention_heads = 8.*16 and 24"),
        ({"num_attention_heads": 6}, r"num_attention_heads: 6 heads cannot be shared by 4 KV heads .*allowed: 4, 8"),
        ({"num_attention_heads": 8, "num_key_value_heads": 2}, r"allowed: 2, 4"),
        ({"drop_layers": (4,)}, r"drop_layers: 4; the teacher has layers 0 to 3"),
        ({"drop_layers": (0, 1, 2, 3)}, r"lists all 4 layers"),
        ({"drop_layers": (0,), "num_hidden_layers": 2}, r"num_hidden_layers: 2, but drop_layers leaves 3 of 4"),
    ],
)
def test_shapes_that_cannot_be_cut(options, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        target(**options)


@pytest.mark.parametrize(
    "options", [{"hidden_size": 0}, {"drop_layers": (1, 1)}, {"drop_layers": "all"}, {"hiden_size": 3}]
)
def test_options_that_mean_nothing(options) -> None:
    with pytest.raises(ValidationError):
        PruneConfig(**options)


@pytest.mark.parametrize(
    ("given", "refit"),
    [({}, "auto"), ("none", "none"), ({"norms": True}, "none"), ({"refit": "auto", "depth": "linear"}, "none"),
     ({"norms": True, "refit": "all"}, "all")],
)  # fmt: skip
def test_norms_or_depth_turn_the_automatic_refit_off(given: object, refit: str) -> None:
    assert PruneConfig.model_validate({"heal": given}).heal.refit == refit
