"""Factors that a cut applies: to norms over dead channels, attention scores of shorter heads, scaled embeddings."""

from math import sqrt
from typing import Any

import numpy as np
import pytest

from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape
from prunus.steps.prune.compensate import factor, norm_factor
from tests.families import COMMON, SPECIAL

KEPT = np.arange(24)


def shape_of(model_type: str, **changes: Any) -> Shape:
    config = {**COMMON, **SPECIAL[model_type], "model_type": model_type, **changes}
    return Shape.from_config({key: value for key, value in config.items() if value is not None},
                             FAMILIES[model_type], "test")  # fmt: skip


def changed(model_type: str, name: str, kept: np.ndarray = KEPT, scores: Any = None, **cut: Any) -> Any:
    """The factor of a weight of the first layer, or of a weight outside the layers."""
    place = FAMILIES[model_type].place(name)
    assert place is not None
    return factor(place, shape_of(model_type), shape_of(model_type, **cut), scores or {}, kept)


@pytest.mark.parametrize(("lost", "expected"), [(0.0, sqrt(32 / 24)), (1e-3, 1.0)])
def test_a_norm_is_compensated_only_if_all_dropped_channels_are_dead(lost: float, expected: float) -> None:
    energies = np.full((2, 32), 1.0)
    energies[1, 24:] = lost
    assert norm_factor("n", 1, {"energy.n": energies}, KEPT, 32) == pytest.approx(expected)
    assert norm_factor("n", None, {"energy.n": energies[1]}, KEPT, 32) == pytest.approx(expected)
    assert norm_factor("n", 0, {"energy.n": energies}, KEPT, 32) == 1.0  # in that layer nothing is dead


def test_a_norm_that_was_not_measured_or_not_cut_is_left() -> None:
    assert norm_factor("n", 0, {}, KEPT, 32) == 1.0
    assert norm_factor("n", 0, {"energy.n": np.ones((1, 24))}, KEPT, 24) == 1.0


def test_queries_make_up_for_a_shorter_head() -> None:
    assert changed("llama", "model.layers.0.self_attn.q_proj.weight", head_dim=2) == pytest.approx([0.5] * 8)
    assert changed("llama", "model.layers.0.self_attn.k_proj.weight", head_dim=2) == 1.0
    assert changed("llama", "model.layers.0.self_attn.q_proj.weight", hidden_size=24) == 1.0


def test_where_queries_are_normed_their_norm_makes_up_for_it() -> None:
    assert changed("qwen3", "model.layers.0.self_attn.q_norm.weight", head_dim=2) == pytest.approx(0.5)
    assert changed("qwen3", "model.layers.0.self_attn.q_proj.weight", head_dim=2) == 1.0


def test_of_a_fused_projection_the_queries_alone_are_scaled() -> None:
    factors = changed("phi3", "model.layers.0.self_attn.qkv_proj.weight", head_dim=2)
    heads, others = 4 * 2, 2 * 2 * 2
    assert factors == pytest.approx([0.5] * heads + [1.0] * others)


def test_a_scale_that_config_json_holds_needs_none() -> None:
    assert changed("gemma2", "model.layers.0.self_attn.q_proj.weight", head_dim=2) == 1.0
