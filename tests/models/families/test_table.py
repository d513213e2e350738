from pathlib import Path

import pytest

from prunus.errors import ModelError
from prunus.models import families
from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES, family_of


def test_every_file_of_a_family_is_found() -> None:
    files = [file for folder in families.__path__ for file in Path(folder).glob("*.py")]
    assert sum("\nFAMILY = " in file.read_text() for file in files) == len(FAMILIES)


def test_a_variant_that_a_table_is_not_for() -> None:
    with pytest.raises(ModelError, match="decoder_sparse_step is 2; the table of Qwen3-MoE is for 1 alone"):
        family_of({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "here")


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("cohere", "use_qk_norm"),
        ("falcon", "alibi"),
        ("falcon", "new_decoder_architecture"),
        ("gemma", "use_bidirectional_attention"),
        ("opt", "_remove_final_layer_norm"),
        ("phi", "qk_layernorm"),
        ("stablelm", "qk_layernorm"),
        ("stablelm", "use_parallel_residual"),
    ],
)
def test_variants_that_have_a_switch(model_type: str, key: str) -> None:
    with pytest.raises(ModelError, match=f"here: config.json: {key} is True; the table of .* is for False alone"):
        family_of({"model_type": model_type, key: True}, "here")
    assert family_of({"model_type": model_type, key: False}, "here").model_type == model_type


def test_a_pattern_in_letters_is_not_read_beside_layer_types() -> None:
    config = {"model_type": "exaone4", "num_hidden_layers": 2, "sliding_window_pattern": "LLLG"}
    assert family_of({**config, "layer_types": ["sliding_attention", "full_attention"]}, "here").name == "EXAONE 4"
    with pytest.raises(ModelError, match="sliding_window_pattern is 'LLLG'"):
        family_of(config, "here")


def test_unknown_families_and_custom_code_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean `llama`"):
        family_of({"model_type": "lama"}, "here")
    with pytest.raises(ModelError, match="never runs"):
        family_of({"model_type": "lama", "auto_map": {"AutoConfig": "configuration_lama.LamaConfig"}}, "here")


@pytest.mark.parametrize("family", [one for one in FAMILIES.values() if one.gguf], ids=lambda family: family.name)
def test_llama_cpp_has_a_name_for_every_module(family: Family) -> None:
    assert family.gguf is not None
    names = set(family.gguf.names)
    keys = {*family.shared, *family.layered}
    assert names == (keys & names) | {key.rpartition(".")[0] for key in keys - names}


def test_a_file_is_of_one_family() -> None:
    held = [family.gguf for family in FAMILIES.values() if family.gguf is not None]
    for name in {there.architecture for there in held}:
        assert sum(there.architecture == name and there.recognised is None for there in held) == 1, name
