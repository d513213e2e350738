"""Rotary parameters are those that transformers computes with, whatever keys of a config.json say them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from prunus.errors import ModelError
from prunus.models.compatible import with_older_names
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.phi3 import FAMILY as PHI3
from prunus.models.families.table import FAMILIES, family_of
from prunus.models.folder import ModelFolder, write_config
from prunus.models.positions import all_rope_parameters, rope_parameters, with_rope_resolved
from tests.families import COMMON, SPECIAL
from tests.tiny import load, make_model

logging.getLogger("transformers.modeling_rope_utils").setLevel(logging.ERROR)  # of keys that a type does not read

ROTARY = sorted(name for name in SPECIAL if FAMILIES[name].rotary is not None)
BY_KIND = [name for name in ROTARY if FAMILIES[name].rotary.sliding_theta is not None]
THETA = st.sampled_from([11.0, 5e5])
SHARE = st.sampled_from([0.25, 0.5, 1.0])


def optional(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


KNOWN = ["default", "linear", "llama3", "yarn"]
SET = st.builds(
    lambda required, more: {**required, **more},
    st.just({"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    optional(
        rope_type=st.sampled_from(KNOWN),
        type=st.sampled_from(KNOWN),
        rope_theta=THETA,
        partial_rotary_factor=SHARE,
        original_max_position_embeddings=st.just(16),
    ),
)
AROUND = optional(
    rope_theta=THETA,
    rope_local_base_freq=THETA,
    partial_rotary_factor=SHARE,
    rotary_pct=SHARE,
    rotary_emb_base=THETA,
    original_max_position_embeddings=st.just(32),
    rope_scaling=st.none() | SET,
)


def config_of(model_type: str, around: dict[str, Any], sets: list[dict[str, Any]]) -> dict[str, Any]:
    config = {**COMMON, **SPECIAL[model_type], "model_type": model_type, **around}
    if sets:
        nested = dict(zip(("full_attention", "sliding_attention"), sets, strict=True))
        config["rope_parameters"] = nested if model_type in BY_KIND else sets[0]
    return {key: value for key, value in config.items() if value is not None}


def of_transformers(config: dict[str, Any]) -> list[dict[str, Any]]:
    made = AutoConfig.for_model(**json.loads(json.dumps(config)))
    if config["model_type"] not in BY_KIND:  # whose kinds of layers have no trained context of the config's own
        made.standardize_rope_params()  # as when a model is made of it, by when all other keys are there
    found = made.rope_parameters
    sets = [found["full_attention"], found["sliding_attention"]] if config["model_type"] in BY_KIND else [found]
    return [{"partial_rotary_factor": 1.0, **one} for one in sets]


@pytest.mark.parametrize("model_type", ROTARY)
@settings(max_examples=40, deadline=None)
@given(around=AROUND, sets=st.just([]) | st.lists(SET, min_size=2, max_size=2))
def test_they_are_those_of_transformers(model_type: str, around: dict[str, Any], sets: list[dict[str, Any]]) -> None:
    config = config_of(model_type, around, sets)
    try:
        expected = of_transformers(config)
    except Exception as refused:  # Phi-3 takes default and longrope alone
        assert model_type == "phi3"
        assert "rope" in str(refused)
        return
    rotary = FAMILIES[model_type].rotary
    assert all_rope_parameters(config, rotary) == expected
    for written in (
        with_rope_resolved(config, rotary),
        with_older_names(config),
        with_older_names(with_older_names(config)),
    ):
        assert all_rope_parameters(written, rotary) == expected
        assert of_transformers(written) == expected


def test_phi3_calls_longrope_by_other_names() -> None:
    for name in ("su", "yarn", "longrope"):
        found = rope_parameters({"rope_scaling": {"type": name}}, PHI3.rotary)
        assert (found["rope_type"], found["original_max_position_embeddings"]) == ("longrope", 4096)


@pytest.mark.parametrize(("own", "used"), [(64, 64), (None, 16)])
def test_the_configs_trained_context_comes_first(tmp_path: Path, own: int | None, used: int) -> None:
    teacher = make_model(tmp_path / "teacher", head_dim=8, hidden_size=64)
    config = json.loads((teacher / "config.json").read_text())
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 16}
    config |= {"rope_parameters": yarn, **({} if own is None else {"original_max_position_embeddings": own})}
    (teacher / "config.json").write_text(json.dumps(config))
    assert rope_parameters(config, LLAMA.rotary)["original_max_position_embeddings"] == used
    expected = load(teacher).model.rotary_emb.inv_freq
    write_config(teacher, ModelFolder(teacher).config)
    (teacher / "config.json").write_text(
        json.dumps({**config, "rope_parameters": {**yarn, "original_max_position_embeddings": used}})
    )
    assert torch.equal(load(teacher).model.rotary_emb.inv_freq, expected)


def test_yarn_added_next_to_rope_parameters_is_what_a_student_keeps(tmp_path: Path) -> None:
    teacher = make_model(tmp_path / "teacher", head_dim=8, hidden_size=64)
    config = json.loads((teacher / "config.json").read_text())
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    (teacher / "config.json").write_text(json.dumps({**config, "rope_theta": 77.0, "rope_scaling": yarn}))
    folder = ModelFolder(teacher)
    assert folder.shape.rope_types == {"yarn"}
    assert folder.shape.least_head_dim == 2
    ids = torch.arange(3, 40)[None]
    expected = load(teacher)(ids).logits
    write_config(teacher, folder.config)
    assert torch.equal(load(teacher)(ids).logits, expected)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rope_theta": "10000"}, "rope_theta is '10000'; expected a number above 0"),
        ({"rope_theta": True}, "rope_theta is True"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"rope_theta": None}, "rope_theta is None"),
        ({"rope_scaling": [1]}, r"rope_scaling is \[1\]; expected an object"),
        ({"rope_scaling": {"type": 5, "factor": 2.0}}, "rope_type is 5; expected a name"),
        ({"rope_parameters": {"rope_type": "linear", "factor": float("nan")}}, "factor is nan"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters.full_attention"),
    ],
)
def test_values_that_no_loader_reads_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=f"x: config.json: {told}"):
        family_of({**COMMON, "model_type": "llama", **values}, "x")
