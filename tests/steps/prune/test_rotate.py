"""Rotated cuts: exact if no energy is lost, for every family that can be rotated; refused for the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from prunus.errors import ShapeError
from prunus.models.checkpoint import read_bytes, write_tensors
from prunus.models.folder import ModelFolder, write_config
from prunus.models.student import student_config
from prunus.models.values import to_float
from prunus.steps.prune.choose import choose
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.rotate import (
    balanced,
    diagonalise,
    lost_energy,
    make_rotation,
    principal_axes,
    stored_vectors,
    sum_to_zero,
)
from tests.families import kill, make_teacher, square_cut
from tests.steps.prune.test_families import TYPES, logits, prune, score, zero_scores_of_dead_heads

TIED = ("gpt2", "cohere", "cohere2", "starcoder2", "opt", "falcon")
"""With LayerNorm: can be rotated only if the head is untied."""
POST_NORMED = ("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "glm4")
ROTATABLE = [name for name in TYPES if name not in POST_NORMED]


def in_float64(folder: Path) -> Path:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).save_pretrained(folder)
    return folder


def rotatable(tmp_path: Path, model_type: str) -> Path:
    """A teacher, with an untied LM head where it needs one."""
    folder = make_teacher(tmp_path / "teacher", model_type)
    if model_type in TIED:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn(300, 32) * 0.3)
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_another_basis_is_the_same_model(tmp_path: Path, model_type: str) -> None:
    folder = in_float64(rotatable(tmp_path, model_type))
    teacher = ModelFolder(folder)
    draw = np.random.default_rng(0).normal(size=(32, 40))
    if teacher.family.layer_norm:
        draw -= draw.mean(axis=0)
    vector = stored_vectors(lambda name: to_float(read_bytes(teacher.tensors[name]), "F64"), teacher.family)
    rotation = make_rotation(draw @ draw.T, draw @ draw.T, teacher.shape, 32, vector)
    config = PruneConfig(method="rotate", importance="random")
    keep = choose({}, teacher.shape, teacher.shape, config, None)
    (tmp_path / "out").mkdir()
    write_tensors(tmp_path / "out", cut(teacher.tensors, teacher.shape, teacher.shape, keep, {}, rotation))
    write_config(tmp_path / "out", student_config(teacher.config, teacher.shape, teacher.shape, keep.layers))
    in_float32 = not teacher.family.layer_norm or model_type in ("cohere", "cohere2")  # in transformers' norms
    tolerance = 1e-4 if in_float32 else 1e-9
    torch.testing.assert_close(logits(tmp_path / "out"), logits(folder), rtol=tolerance, atol=tolerance)
    if not teacher.shape.flags.get(
        "tie_word_embeddings"
    ):  # tied, all axes and the final gain lead back where they were
        before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
        name = next(name for name in before if "embed" in name or "wte" in name)
        assert np.abs(before[name] - after[name]).max() > 0.1


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_cutting_what_is_never_written_is_exact(tmp_path: Path, model_type: str) -> None:
    folder = rotatable(tmp_path, model_type)
    dead = [1, 2, 5, 11, 12, 20, 21, 30, 0, 8, 9, 10, 17, 18, 25, 31]
    options: dict[str, Any] = {"hidden_size": 24}
    if ModelFolder(folder).family.square:
        heads, options = square_cut(ModelFolder(folder).shape)
        kill(folder, heads)
    kill(folder, {"hidden": dead[: 32 - options["hidden_size"]]})
    if ModelFolder(folder).shape.conv_channels:  # short convolutions have as many channels as the stream
        kill(folder, {"conv": [[layer, *dead[:7]] for layer in (3, 4, 6, 7)]})
    scores = score(folder, tmp_path)
    if ModelFolder(folder).family.square and ModelFolder(folder).shape.num_key_value_heads == 1:
        zero_scores_of_dead_heads(scores, heads["heads"])
    out = prune(folder, tmp_path / "out", scores, method="rotate", **options)
    torch.testing.assert_close(logits(out), logits(folder), rtol=2e-4, atol=2e-4)
    assert ModelFolder(out).shape.hidden_size == options["hidden_size"]


@pytest.mark.parametrize("model_type", [*POST_NORMED, *TIED])
def test_what_cannot_be_rotated_is_refused(tmp_path: Path, model_type: str) -> None:
    shape = ModelFolder(make_teacher(tmp_path / "teacher", model_type)).shape
    with pytest.raises(ShapeError, match=r"students.w.prune.method: .* cannot be rotated; allowed: minitron"):
        PruneConfig(method="rotate", hidden_size=16).target(shape, "students.w.prune")


def test_the_axes_are_the_principal_ones() -> None:
    points = np.random.default_rng(0).normal(size=(6, 50)) * np.array([5, 1, 4, 1, 3, 1])[:, None]
    covariance = points @ points.T
    axes = principal_axes(covariance, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    values = np.sort(np.linalg.eigvalsh(covariance))
    assert lost_energy(covariance, axes) == pytest.approx(values[:3].sum() / values.sum())
    assert lost_energy(covariance, np.eye(6)) == pytest.approx(0, abs=1e-12)


def test_axes_are_balanced_between_what_is_held_and_what_is_felt() -> None:
    held, felt = np.diag([4.0, 3, 2, 1, 0, 0]), np.diag([0.0, 0, 1, 5, 4, 90])  # the last two are never reached
    actual = balanced(held, felt, 1.0)
    np.testing.assert_allclose(actual, np.diag([0.4, 0.3, 0.2 + 1 / 6, 0.1 + 5 / 6, 0, 0]), atol=1e-12)
    kept = np.abs(principal_axes(actual, 2)).argmax(axis=0)
    assert kept.tolist() == [3, 0]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]  # whatever the basis
    np.testing.assert_allclose(
        balanced(turn @ held @ turn.T, turn @ felt @ turn.T, 1.0), turn @ actual @ turn.T, atol=1e-9
    )
    np.testing.assert_allclose(balanced(held, felt, 0.0), held / 10)
    np.testing.assert_allclose(balanced(held, np.diag([0.0, 0, 0, 0, 4, 90]), 1.0), held / 10)  # nothing to weigh


def test_gradients_are_read_unless_they_weigh_nothing(tmp_path: Path) -> None:
    shape = ModelFolder(make_teacher(tmp_path / "teacher", "llama")).shape
    smaller = shape.with_dimensions({"hidden_size": 16})
    assert PruneConfig(hidden_size=16).statistics(shape, smaller) == {"covariance", "gradient_covariance"}
    assert PruneConfig(hidden_size=16, gradient_weight=0).statistics(shape, smaller) == {"covariance"}


def test_a_rotated_tied_head_equals_an_untied_one_on_the_kept_subspace() -> None:
    draw = np.random.default_rng(0)
    embedding, gain = draw.normal(size=(50, 8)), draw.random(8) + 0.5
    axes = np.linalg.qr(draw.normal(size=(8, 5)))[0]
    basis, diagonal = diagonalise(axes, gain)
    x = draw.normal(size=8)
    inside = axes @ axes.T
    expected = embedding @ inside @ (gain * (inside @ x))  # E P G P x
    tied = (embedding @ basis) @ (diagonal * (basis.T @ x))
    np.testing.assert_allclose(tied, expected, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_columns_that_sum_to_zero(size: int) -> None:
    columns = sum_to_zero(size)
    assert columns.shape == (size, size - 1)
    np.testing.assert_allclose(columns.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(columns.T @ columns, np.eye(size - 1), atol=1e-12)


@pytest.mark.parametrize("model_type", TYPES)
def test_auto_rotates_families_that_can_be_rotated(tmp_path: Path, model_type: str) -> None:
    shape = ModelFolder(make_teacher(tmp_path / "teacher", model_type)).shape
    smaller = shape.with_dimensions({"hidden_size": 16})
    assert PruneConfig(hidden_size=16).rotates(shape, smaller) == (model_type in {*ROTATABLE} - {*TIED})
    for options in ({"method": "minitron"}, {"init": "random"}, {"importance": "random"}):
        assert not PruneConfig(hidden_size=16, **options).rotates(shape, smaller)
    assert not PruneConfig(intermediate_size=16).rotates(shape, shape.with_dimensions({"intermediate_size": 16}))
