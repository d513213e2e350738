"""Folders that older and other readers load too: what they look for stands beside what transformers 5 saves."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from prunus.models.compatible import make_compatible, with_older_names
from prunus.models.folder import copy_along
from prunus.models.load import load_model, save_model
from tests.families import SPECIAL, make_teacher
from tests.tiny import load, make_model

OLD = os.environ.get("PRUNUS_OLD_PYTHON")  # a Python with transformers 4.57
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def saved(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Save a model as training does, and return its config.json."""
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **changes}))
    out.mkdir()
    save_model(load_model(source, torch.device("cpu"), torch.float32), out, torch.float32)
    copy_along(source, out)
    return json.loads((out / "config.json").read_text())


def test_theta_and_scaling_are_next_to_rope_parameters(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", head_dim=8)
    config = saved(source, tmp_path / "out", rope_parameters=LLAMA3)
    assert config["rope_theta"] == 5000.0
    assert config["rope_scaling"] == {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert config["rope_parameters"] == LLAMA3
    reread = AutoConfig.from_pretrained(tmp_path / "out").rope_parameters
    assert {key: reread[key] for key in LLAMA3} == LLAMA3
    assert torch.equal(load(tmp_path / "out")(torch.arange(9)[None]).logits, load(source)(torch.arange(9)[None]).logits)


def test_plain_positions_have_no_scaling(tmp_path: Path) -> None:
    config = saved(make_model(tmp_path / "model"), tmp_path / "out")
    assert config["rope_theta"] == 10000.0
    assert "rope_scaling" not in config


def test_each_kind_of_layer_has_its_theta_and_a_part_its_share(tmp_path: Path) -> None:
    gemma = saved(make_teacher(tmp_path / "gemma", "gemma3_text"), tmp_path / "one")
    assert (gemma["rope_theta"], gemma["rope_local_base_freq"]) == (1e6, 1e4)
    neox = saved(make_teacher(tmp_path / "neox", "gpt_neox"), tmp_path / "two")
    assert (neox["rotary_pct"], neox["rotary_emb_base"]) == (0.25, 1e4)


def test_what_has_no_positions_of_that_kind_is_left_alone() -> None:
    assert with_older_names({"model_type": "llama", "rope_theta": 3.0}) == {"model_type": "llama", "rope_theta": 3.0}


def test_the_tokenizers_class_is_one_that_all_know(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<x>"]}))
    make_compatible(folder)
    found = json.loads(file.read_text())
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["additional_special_tokens"] == ["<x>"]
    assert "extra_special_tokens" not in found
    assert AutoTokenizer.from_pretrained(folder)("plum")["input_ids"]


@pytest.mark.processes
@pytest.mark.skipif(not OLD, reason="PRUNUS_OLD_PYTHON names no Python with transformers 4.57")
@pytest.mark.parametrize("model_type", [kind for kind in SPECIAL if kind not in ("gemma2", "ministral3")])
def test_transformers_4_57_computes_the_same(tmp_path: Path, model_type: str) -> None:
    source = make_teacher(tmp_path / "model", model_type)
    changes = {"rope_parameters": LLAMA3} if model_type == "llama" else {}
    saved(source, tmp_path / "out", **changes)
    code = (
        "import sys, numpy, torch; from transformers import AutoModelForCausalLM, AutoTokenizer, __version__\n"
        "assert __version__.startswith('4.57'), __version__\n"
        "AutoTokenizer.from_pretrained(sys.argv[1])('plum')\n"
        "logits = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()(torch.arange(3, 60)[None]).logits\n"
        "numpy.save(sys.argv[2], logits.detach().numpy())"
    )
    assert OLD is not None
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [OLD, "-c", code, str(tmp_path / "out"), str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    with torch.no_grad():
        wanted = load(tmp_path / "out")(torch.arange(3, 60)[None]).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), wanted, atol=1e-4)
