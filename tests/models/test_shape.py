from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.errors import ModelError, ShapeError
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.table import FAMILIES
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


V2_LITE = {
    "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
    "n_shared_experts": 2, "n_routed_experts": 64, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_group": 1, "topk_group": 1, "max_position_embeddings": 163840,
}  # fmt: skip
V3 = {"model_type": "deepseek_v3", "num_attention_heads": 128, "num_key_value_heads": 128}


@pytest.mark.parametrize(("config", "cached"), [(V2_LITE, 27 * 576), ({**V3, "vocab_size": 129280}, 61 * 576)])
def test_latent_attention_is_counted_as_transformers_builds_it(config: dict, cached: int) -> None:
    built = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(built)
    shape = Shape.from_config(built.to_dict(), FAMILIES[config["model_type"]], "here")
    buffers = sum(b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias"))
    assert shape.parameters == sum(p.numel() for p in model.parameters()) + buffers
    assert shape.kv_cache_bytes(1) == cached


def test_latent_attention_with_shared_keys_is_refused() -> None:
    with pytest.raises(ModelError, match="16 query heads and 8 KV heads; MLA has one of each"):
        Shape.from_config({**V2_LITE, "num_key_value_heads": 8}, FAMILIES["deepseek_v2"], "here")


def test_flops_of_latent_attention_count_queries_and_values_apart() -> None:
    shape = Shape.from_config(V2_LITE, FAMILIES["deepseek_v2"], "here")
    assert shape.flops_per_token(1024) - shape.flops_per_token(0) == 27 * 16 * (192 + 128) * 1024
