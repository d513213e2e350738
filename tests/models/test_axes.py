import pytest

from prunus.errors import ModelError
from prunus.models.axes import parse_weight
from prunus.models.families import FAMILIES, LLAMA, family_of

SIZES = {"vocab": 11, "hidden": 6, "mlp": 5, "heads": 4, "kv_heads": 2, "head_dim": 3}


def test_a_line_is_taken_apart() -> None:
    weight = parse_weight("(heads head_dim) hidden if attention_bias")
    assert weight.dims == (("heads", "head_dim"), ("hidden",))
    assert weight.shape(SIZES) == (12, 6)
    assert weight.reads("hidden")
    assert not weight.reads("heads")
    assert weight.exists({"attention_bias": True})
    assert not weight.exists({})


def test_a_negated_condition() -> None:
    weight = parse_weight("vocab hidden if not tie_word_embeddings")
    assert weight.exists({"tie_word_embeddings": False})
    assert not weight.exists({"tie_word_embeddings": True})


@pytest.mark.parametrize("line", ["hiden", "", "(heads dim) hidden"])
def test_an_unknown_axis_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="unknown axes"):
        parse_weight(line)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_line_of_every_table_reads(family) -> None:
    for line in [*family.shared.values(), *family.layered.values()]:
        assert parse_weight(line).dims


def test_names_are_found_and_renumbered() -> None:
    name = "model.layers.17.self_attn.q_proj.weight"
    found = LLAMA.weight(name)
    assert found is not None
    assert found[1] == 17
    assert LLAMA.renumber(name, 3) == "model.layers.3.self_attn.q_proj.weight"
    assert LLAMA.weight("model.layers.1.self_attn.rotary_emb.inv_freq") is None
    assert LLAMA.weight("model.layers.x.input_layernorm.weight") is None


def test_scoring_finds_its_modules() -> None:
    assert LLAMA.readers("mlp") == ["mlp.down_proj"]
    assert LLAMA.readers("heads") == ["self_attn.o_proj"]
    assert LLAMA.norms() == (["input_layernorm", "post_attention_layernorm"], ["model.norm"])


def test_unknown_families_and_custom_code_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean `llama`"):
        family_of({"model_type": "lama"}, "here")
    with pytest.raises(ModelError, match="never runs"):
        family_of({"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}}, "here")
