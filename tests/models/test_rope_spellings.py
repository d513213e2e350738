"""Rotary positions, however a config.json spells them, are those that transformers computes with."""

import itertools
from typing import Any

import pytest
from transformers import AutoConfig

from prunus.models.families import FAMILIES
from prunus.models.positions import KINDS, rope_parameters
from tests.tiny import SMALL

YARN = {"factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0], "original_max_position_embeddings": 64}
PLACES: dict[str, list[dict[str, Any]]] = {
    "rope_theta": [{}, {"rope_theta": 1e6}],
    "rope_parameters": [
        {},
        {"rope_parameters": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 600.0}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    ],
    "rope_scaling": [
        {},
        {"rope_scaling": None},
        {"rope_scaling": {"type": "yarn", **YARN}},
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0}},
    ],
    "older": [{}, {"rotary_emb_base": 800.0, "rotary_pct": 0.75}, {"partial_rotary_factor": 0.5}],
}
ROTARY = [name for family in FAMILIES if family.rotary for name in family.model_types]
OWN = {
    "gemma3_text": [
        {"rope_local_base_freq": 900.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 1e5},
        {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": 5.0 + i} for i, kind in enumerate(KINDS)}},
        {
            "rope_parameters": {kind: {"rope_type": "default"} for kind in KINDS},
            "rope_scaling": {"type": "yarn", **YARN},
        },
        {},
    ],
    "phi3": [{"rope_scaling": {"type": kind, **LONG}, "max_position_embeddings": 128} for kind in ("su", "longrope")],
}


def config_of(model_type: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {**SMALL, "model_type": model_type, "pad_token_id": 0, **changes}


def spellings(model_type: str) -> list[dict[str, Any]]:
    if model_type in OWN:
        return OWN[model_type]
    together = itertools.product(*PLACES.values())
    return [{key: value for place in chosen for key, value in place.items()} for chosen in together]


@pytest.mark.parametrize("model_type", ROTARY)
def test_every_spelling_is_read_as_transformers_reads_it(model_type: str) -> None:
    for changes in spellings(model_type):
        config = config_of(model_type, changes)
        loaded = AutoConfig.for_model(**config)
        for kind in KINDS:
            reference = loaded.rope_parameters
            reference = reference.get(kind, reference)
            found = rope_parameters(config, kind)
            assert found["partial_rotary_factor"] == reference.get("partial_rotary_factor", 1.0), changes
            shared = reference.keys() - {"original_max_position_embeddings"}
            assert {key: found.get(key) for key in shared} == {key: reference[key] for key in shared}, changes
