"""What a GGUF file holds of a config.json: the same whether transformers' defaults are written out in it or not."""

import pytest
from transformers import AutoConfig

from prunus.gguf.metadata import model_keys
from prunus.models.families.table import FAMILIES, family_of
from prunus.models.shape import Shape
from tests.tiny import SMALL

SIZES = {
    *SMALL, "num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "n_embd", "n_head",
    "n_layer", "n_positions", "n_inner",
}  # fmt: skip


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.gguf is not None])
def test_a_setting_that_a_config_leaves_out_is_transformers_default(model_type: str) -> None:
    sizes = {**SMALL, "max_position_embeddings": 8192, "pad_token_id": 0}
    if "head_dim" in FAMILIES[model_type].absent:
        del sizes["head_dim"]  # which some configs refuse
    whole = AutoConfig.for_model(**{**sizes, "model_type": model_type}).to_dict()
    bare = {key: value for key, value in whole.items() if key in SIZES}
    written = [model_keys(one, Shape.from_config(one, family_of(one, "test"), "test")) for one in (bare, whole)]
    assert written[0] == written[1]
