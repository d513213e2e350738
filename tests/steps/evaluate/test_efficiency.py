"""What a model takes up: the growth of the process is seen while it lasts."""

from __future__ import annotations

import time

import torch

from prunus.models.folder import ModelFolder
from prunus.steps.evaluate.config import EfficiencyConfig
from prunus.steps.evaluate.efficiency import Resident, efficiency
from tests import tiny

SIZE = 64 * 2**20


def test_growth_is_the_most_that_was_held():
    with Resident() as resident:
        held = torch.ones(SIZE, dtype=torch.uint8)
        time.sleep(0.1)
        del held
        time.sleep(0.02)
    assert SIZE * 0.9 < resident.growth < SIZE * 1.5


def test_memory_holds_weights_and_cache(tmp_path):
    folder = tiny.make_model(tmp_path / "model")
    shape = ModelFolder(folder).shape
    found = efficiency({"model": (tiny.load(folder), shape)}, EfficiencyConfig(prompt_tokens=8, new_tokens=4, rounds=1))
    own = found["model"]
    assert own["memory_bytes"] >= own["bytes"] + 12 * own["kv_bytes_per_token"]
    assert own["prefill"] > 0
    assert own["decode"] > 0
