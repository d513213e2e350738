import pytest

from prunus.models.axes import parse_weight
from prunus.models.families.family import Family
from prunus.models.families.gpt2 import FAMILY as GPT2
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.qwen3_moe import FAMILY as QWEN3_MOE
from prunus.models.families.table import FAMILIES


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_line_of_every_table_reads(family) -> None:
    for line in [*family.shared.values(), *family.layered.values()]:
        assert parse_weight(line).dims


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


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
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
