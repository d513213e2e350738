"""Budgets as people write them, and the figures that they are held against."""

import pytest
from pydantic import ValidationError

from prunus.pipeline.search.config import Limit, SearchConfig
from tests.pipeline.search.making import meter_of, shape_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q4_k_m file <= 2.0 GB", {"what": "file", "format": "gguf-q4_k_m", "at_most": 2e9}),
        ("Q8_0 file ≤ 1.5 GiB", {"what": "file", "format": "gguf-q8_0", "at_most": 1.5 * 2**30}),
        ("context 8192 in <= 3 GB", {"what": "memory", "context": 8192, "format": None, "at_most": 3e9}),
        ("q4_0 context 4_096 batch 4 in at most 3GB", {"what": "memory", "batch": 4, "context": 4096, "at_most": 3e9}),
        ("parameters <= 4B", {"what": "parameters", "at_most": 4e9, "of_teacher": False}),
        ("parameters < 135M parameters", {"what": "parameters", "at_most": 135e6}),
        ("non-embedding parameters <= 50%", {"what": "non_embedding_parameters", "at_most": 0.5, "of_teacher": True}),
        ("parameters <= 50% of the teacher's", {"what": "parameters", "at_most": 0.5, "of_teacher": True}),
        ("flops per token at context 512 <= 8 GFLOPs", {"what": "flops", "context": 512, "at_most": 8e9}),
        ("decode <= 20 ms", {"what": "latency", "engine": "llama.cpp", "at_most": 0.02}),
        ("torch decode at 256 <= 0.5 s", {"what": "latency", "engine": "torch", "context": 256, "at_most": 0.5}),
    ],
)
def test_a_limit_is_read_as_people_write_it(text: str, expected: dict) -> None:
    (limit,) = SearchConfig(budget=text).budget
    assert {key: getattr(limit, key) for key in expected} == pytest.approx(expected)


def test_several_limits_and_their_options_mean_the_same() -> None:
    said = SearchConfig(budget="q4_k_m file <= 2.0 GB, context 8192, batch 2 in <= 3 GB")
    listed = SearchConfig(
        budget=[
            {"what": "file", "format": "q4_k_m", "at_most": "2 GB"},
            {"what": "memory", "context": 8192, "batch": 2, "at_most": 3e9},
        ]
    )
    assert said.budget == listed.budget
    assert said.identity() == listed.identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed <= 3", "'speed' cannot be limited"),
        ("q4_k_m file of 2 GB", "is not a limit"),
        ("q4_k_m file <= 2 parsecs", "unknown unit 'parsecs'"),
        ("file <= 2 GB", "format: missing"),
        ("parameters <= many", "'many' is not a number"),
        ("decode <= 3 GB", "unknown unit"),
    ],
)
def test_what_is_no_limit_is_refused_with_examples(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchConfig(budget=text)


def test_figures_are_those_of_the_shape() -> None:
    teacher, shape = shape_of(), shape_of(num_hidden_layers=2, num_key_value_heads=2, num_attention_heads=4)
    meter = meter_of(teacher)
    memory = Limit(what="memory", context=100, batch=3, at_most=1)
    cache = 3 * 100 * 2 * 2 * 2 * 4 * 2  # batch, context, keys and values, layers, KV heads, head_dim, 16 bits
    assert meter.figure(memory, shape) == 2 * shape.parameters + cache
    half = Limit(what="non_embedding_parameters", at_most="50%")
    assert meter.bound(half) == teacher.non_embedding_parameters / 2
    budget = (half, Limit(what="file", format="q8_0", at_most=3 * shape.parameters))
    shares = [
        2 * shape.non_embedding_parameters / teacher.non_embedding_parameters,
        (2 * shape.parameters + 10) / (3 * shape.parameters),
    ]
    assert meter.fill(budget, shape) == pytest.approx(max(shares))
