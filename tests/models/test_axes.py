import pytest

from prunus.errors import ModelError
from prunus.models.axes import Family, parse_weight
from prunus.models.families import FAMILIES, GPT2, LLAMA, QWEN3_MOE, family_of

SIZES = {"vocab": 11, "hidden": 6, "mlp": 5, "heads": 4, "kv_heads": 2, "head_dim": 3}


def test_a_line_is_taken_apart() -> None:
    weight = parse_weight("(heads head_dim) hidden if attention_bias")
    assert weight.dims == ((("heads", "head_dim"),), (("hidden",),))
    assert weight.shape(SIZES) == (12, 6)
    assert weight.runs_over("hidden", -1)
    assert not weight.runs_over("heads", -1)
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


def test_fused_projections_are_segments() -> None:
    weight = parse_weight("(heads head_dim)+(kv_heads head_dim)+mlp (3 head_dim)")
    assert weight.dims == ((("heads", "head_dim"), ("kv_heads", "head_dim"), ("mlp",)), ((3, "head_dim"),))
    assert weight.shape(SIZES) == (12 + 6 + 5, 9)


def test_names_are_found() -> None:
    place = LLAMA.place("model.layers.17.self_attn.q_proj.weight")
    assert place is not None
    assert (place.key, place.layer, place.expert) == ("self_attn.q_proj.weight", 17, None)
    assert LLAMA.name_of(place.key, 3) == "model.layers.3.self_attn.q_proj.weight"
    assert LLAMA.place("model.layers.1.self_attn.rotary_emb.inv_freq") is None
    assert LLAMA.place("model.layers.x.input_layernorm.weight") is None


def test_experts_stand_in_names() -> None:
    place = QWEN3_MOE.place("model.layers.2.mlp.experts.11.up_proj.weight")
    assert place is not None
    assert (place.layer, place.expert) == (2, 11)
    assert QWEN3_MOE.name_of(place.key, 0, 5) == "model.layers.0.mlp.experts.5.up_proj.weight"


def test_a_prefix_may_be_left_out() -> None:
    for name in ("transformer.h.3.attn.c_attn.weight", "h.3.attn.c_attn.weight"):
        place = GPT2.place(name)
        assert place is not None
        assert (place.key, place.layer) == ("attn.c_attn.weight", 3)
    assert GPT2.place("wte.weight") == GPT2.place("transformer.wte.weight")
    assert GPT2.place("h.0.attn.bias") is None


def test_scoring_finds_its_modules() -> None:
    assert LLAMA.readers("mlp") == ["mlp.down_proj"]
    assert LLAMA.readers("heads") == ["self_attn.o_proj"]
    assert GPT2.readers("heads") == ["attn.c_proj"]
    assert LLAMA.norms == (("input_layernorm", "post_attention_layernorm"), ("model.norm",))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_reads_the_stream_reads_one_norm_where_norms_stand_before(family: Family) -> None:
    if not family.feeds:
        assert family.writers
        return
    reading = 0 if family.conv1d else 1
    readers = [module for modules in family.feeds.values() for module in modules]
    assert len(readers) == len(set(readers))
    for key, line in family.layered.items():
        if len(parse_weight(line).dims) == 2:
            assert (family.norm_before(key) is not None) == parse_weight(line).runs_over("hidden", reading), key
    over_heads = {"self_attn.q_norm", "self_attn.k_norm"}
    assert set(family.feeds) == {*family.norms[0], *family.norms[1]} - over_heads


def test_a_variant_that_a_table_is_not_for() -> None:
    with pytest.raises(ModelError, match="decoder_sparse_step is 2; the table of Qwen3-MoE is for 1 alone"):
        family_of({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "here")


def test_unknown_families_and_custom_code_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean `llama`"):
        family_of({"model_type": "lama"}, "here")
    with pytest.raises(ModelError, match="never runs"):
        family_of({"model_type": "lama", "auto_map": {"AutoConfig": "configuration_lama.LamaConfig"}}, "here")
