from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.errors import ModelError, ShapeError
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from tests.tiny import SMALL

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def shape_of(**changes) -> Shape:
    return Shape.from_config({**SMALL, **changes}, LLAMA, "test")


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    head_dim=st.sampled_from([2, 4, 6]),
    width=st.integers(1, 3),
    mlp=st.integers(1, 20),
    layers=st.integers(1, 3),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_tensors_are_those_that_transformers_builds(
    groups, per_group, head_dim, width, mlp, layers, tied, bias
) -> None:
    heads = groups * per_group
    changes = {
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "hidden_size": heads * width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "tie_word_embeddings": tied,
        "attention_bias": bias,
        "mlp_bias": bias,
    }
    shape = shape_of(**changes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**SMALL, **changes}))
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert dict(shape.tensors()) == expected
    assert shape.parameters == sum(prod(s) for s in expected.values())


def test_llama_8b_is_counted_to_the_last_parameter() -> None:
    shape = Shape.from_config(LLAMA_8B, LLAMA, "test")
    assert shape.parameters == 8_030_261_248
    assert shape.non_embedding_parameters == 6_979_588_096
    assert shape.kv_cache_bytes(2) == 131_072


def test_nvidias_students_are_counted_to_the_last_parameter() -> None:
    teacher = Shape.from_config(LLAMA_8B, LLAMA, "test")
    width = teacher.with_dimensions({"hidden_size": 3072, "intermediate_size": 9216})
    depth = teacher.with_dimensions({"num_hidden_layers": 16})
    assert (width.parameters, width.non_embedding_parameters) == (4_512_746_496, 3_724_741_632)
    assert (depth.parameters, depth.non_embedding_parameters) == (4_540_469_248, 3_489_796_096)


def test_flops_are_those_of_the_matrices_that_multiply() -> None:
    shape = shape_of()
    hidden, mlp, heads, head_dim, kv = 32, 48, 8, 4, 4
    layer = 2 * (2 * hidden * heads * head_dim + 2 * hidden * kv * head_dim + 3 * hidden * mlp)
    context = 64
    attention = 2 * 2 * heads * head_dim * context / 2  # two products over the average causal context
    assert shape.flops_per_token(context) == 4 * (layer + attention) + 2 * 300 * hidden


def test_a_shape_that_no_loader_takes_is_refused_with_the_nearest() -> None:
    with pytest.raises(ShapeError, match=r"students.width.hidden_size: 28 .* 24 and 32"):
        shape_of().with_dimensions({"hidden_size": 28}).check_loadable("students.width")


@pytest.mark.parametrize("value", [0, -1, "32", None, True, 3.5])
def test_a_dimension_that_is_no_size_is_refused(value) -> None:
    with pytest.raises(ModelError, match="hidden_size"):
        shape_of(hidden_size=value)


@pytest.mark.parametrize(
    ("hidden", "said"), [(380, "378 and 387; or 384 with num_attention_heads: 6"), (500, "495 and 504$")]
)
def test_a_size_that_no_loader_takes_is_refused_with_the_nearest(hidden: int, said: str) -> None:
    config = {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    }  # fmt: skip
    shape = Shape.from_config(config, LLAMA, "x").with_dimensions({"hidden_size": hidden})
    with pytest.raises(ShapeError, match=said):
        shape.check_loadable("prune")
