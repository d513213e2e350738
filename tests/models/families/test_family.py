from collections.abc import Callable

import pytest

from prunus.models.axes import parse_weight
from prunus.models.families.family import Family, Place
from prunus.models.families.gemma2 import FAMILY as GEMMA2
from prunus.models.families.gpt2 import FAMILY as GPT2
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.qwen3_moe import FAMILY as QWEN3_MOE
from prunus.models.families.table import FAMILIES

KINDS = ("weight", "bias")
PARTS = ("attention", "mlp", "other")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_line_of_every_table_reads(family) -> None:
    for line in [*family.shared.values(), *family.layered.values()]:
        assert parse_weight(line).dims


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_condition_has_a_default(family: Family) -> None:
    lines = [*family.shared.values(), *family.layered.values()]
    assert {parse_weight(line).condition for line in lines} - {""} <= {*family.flags, *family.latent}
    assert set(family.biases) <= set(family.flags)


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
    assert LLAMA.readers("mlp", frozenset()) == ["mlp.down_proj"]
    assert LLAMA.readers("heads", frozenset()) == ["self_attn.o_proj"]
    assert GPT2.readers("heads", frozenset()) == ["attn.c_proj"]
    assert LLAMA.norms == (("input_layernorm", "post_attention_layernorm"), ("model.norm",))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_what_reads_the_stream_reads_one_norm_where_norms_stand_before(family: Family) -> None:
    if not family.feeds:
        assert family.writers
        return
    readers = [module for modules in family.feeds.values() for module in modules]
    assert len(readers) == len(set(readers))
    for key, line in family.layered.items():
        weight = parse_weight(line)
        if len(weight.dims) == 2:
            reading = 1 - family.outputs(weight)
            assert (family.norm_before(key) is not None) == weight.runs_over("hidden", reading), key
    over_heads = {name for name in family.norms[0] if not parse_weight(family.layered[f"{name}.weight"]).has("hidden")}
    assert set(family.feeds) == {*family.norms[0], *family.norms[1]} - over_heads


def keys_that(family: Family, holds: Callable[[Place], object]) -> set[str]:
    places = [family.place(family.name_of(key, 1, 0)) for key in family.layered]
    return {place.key for place in places if place is not None and holds(place)}


def test_what_writes_to_the_stream() -> None:
    biases = {"self_attn.o_proj.bias", "mlp.down_proj.bias"}
    assert keys_that(LLAMA, LLAMA.writes) == {"self_attn.o_proj.weight", "mlp.down_proj.weight"} | biases
    norms = {"post_attention_layernorm.weight", "post_feedforward_layernorm.weight"}
    assert keys_that(GEMMA2, GEMMA2.writes) == norms
    assert keys_that(GPT2, GPT2.writes) == {f"{part}.c_proj.{kind}" for part in ("attn", "mlp") for kind in KINDS}
    assert keys_that(QWEN3_MOE, QWEN3_MOE.writes) == {
        "self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.experts.{experts}.down_proj.weight"
    }  # fmt: skip


def test_gains_alone_are_stored_less_something() -> None:
    assert keys_that(GEMMA2, GEMMA2.offset_of) == {key for key in GEMMA2.layered if "norm" in key}
    final = GEMMA2.place("model.norm.weight")
    assert final is not None
    assert GEMMA2.offset_of(final) == 1.0
    assert not keys_that(LLAMA, LLAMA.offset_of)


def test_parts_of_a_layer() -> None:
    parts = {part: keys_that(GPT2, lambda place, part=part: GPT2.part_of(place) == part) for part in PARTS}
    assert parts["attention"] == {f"attn.{name}.{kind}" for name in ("c_attn", "c_proj") for kind in KINDS}
    assert parts["mlp"] == {f"mlp.{name}.{kind}" for name in ("c_fc", "c_proj") for kind in KINDS}
    assert parts["other"] == {f"ln_{number}.{kind}" for number in (1, 2) for kind in KINDS}
    head_norm = QWEN3_MOE.place("model.layers.0.self_attn.q_norm.weight")
    embedding = QWEN3_MOE.place("model.embed_tokens.weight")
    assert head_norm is not None
    assert embedding is not None
    assert [QWEN3_MOE.part_of(place) for place in (head_norm, embedding)] == ["attention", "other"]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_one_weight_ends_the_queries(family: Family) -> None:
    ending = {key.rpartition(".")[0] for key in keys_that(family, family.ends_queries)}
    if family.query_norm:
        assert ending == {family.query_norm}
        assert family.query_norm in family.norms[0]
    else:
        assert not {name for name in family.norms[0] if "q_norm" in name}
