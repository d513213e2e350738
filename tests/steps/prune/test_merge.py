"""Merging of experts: its parts compared with slow references, and twins that become one without a change."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prunus.errors import ArtifactError, ShapeError
from prunus.models.axes import positions
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.merge import clusters, distances, group_of, matched, nearest
from prunus.steps.prune.plan import check_cut
from tests.cutting import logits, prune, score
from tests.families import kill, make_teacher

MIXTURES = [name for name, family in FAMILIES.items() if family.experts is not None]
HOW = ("nearest", "clusters")


@given(seed=st.integers(0, 10**6), size=st.integers(2, 9), data=st.data())
def test_clusters_are_joined_by_the_mean_distance_of_their_experts(seed: int, size: int, data: Any) -> None:
    points = np.random.default_rng(seed).normal(size=(size, 4))
    distance = distances(points @ points.T)
    np.testing.assert_allclose(distance, np.linalg.norm(points[:, None] - points, axis=-1), atol=1e-6)
    count = data.draw(st.integers(1, size))
    expected = [[i] for i in range(size)]
    while len(expected) > count:
        first, second = min(
            combinations(expected, 2), key=lambda pair: np.mean([distance[i, j] for i in pair[0] for j in pair[1]])
        )
        expected = [group for group in expected if group not in (first, second)] + [first + second]
    assert sorted(map(sorted, clusters(distance, count))) == sorted(map(sorted, expected))


def test_each_expert_goes_to_the_nearest_kept_one() -> None:
    points = np.array([[0.0], [1.0], [5.0], [4.5], [2.0]])
    assert nearest(distances(points @ points.T), [1, 2]) == [[0, 1, 4], [2, 3]]


def test_a_group_begins_with_its_best_expert_and_is_weighted_by_tokens() -> None:
    group = group_of([1, 3], np.array([0.0, 1.0, 9.0, 2.0]), np.array([7.0, 30.0, 5.0, 10.0]))
    assert group.experts == (3, 1)
    assert group.weights == (0.25, 0.75)
    assert group_of([0, 1], np.zeros(2), np.zeros(2)).weights == (0.5, 0.5)


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12))
def test_neurons_are_matched_from_the_largest_product_on(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    reference, other = draw.normal(size=(2, size, 5))
    left = {(i, j): float(reference[i] @ other[j]) for i in range(size) for j in range(size)}
    expected = {}
    while left:
        row, column = max(left, key=lambda pair: left[pair])
        expected[row] = column
        left = {(i, j): value for (i, j), value in left.items() if i != row and j != column}
    assert matched(reference, other).tolist() == [expected[i] for i in range(size)]


@given(seed=st.integers(0, 10**6), size=st.integers(1, 20))
def test_the_same_neurons_in_another_order_are_matched(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    reference, order = draw.normal(size=(size, 6)), draw.permutation(size)
    np.testing.assert_array_equal(reference[order][matched(reference, reference[order])], reference)


def test_neurons_that_are_all_zero_are_matched_as_well() -> None:
    assert sorted(matched(np.zeros((4, 3)), np.zeros((4, 3))).tolist()) == [0, 1, 2, 3]


def make_twins(teacher: Path) -> None:
    """Make experts 1, 4, 5 of each layer those of 0, 2, 3, with neurons in another order and the same router rows.

    All of the layer's experts become one routing group: groups are ranked by two experts, which would be twins.
    """
    folder = ModelFolder(teacher)
    sizes, family = folder.shape.sizes(), folder.family
    tensors = load_file(teacher / "model.safetensors")
    twins = {1: 0, 4: 2, 5: 3}
    draw = np.random.default_rng(7)
    orders = {expert: draw.permutation(sizes["mlp"]) for expert in twins}
    for name, tensor in tensors.items():
        place = family.place(name)
        assert place is not None
        for expert, twin in twins.items():
            order = orders[expert]
            kept = positions(
                place.weight, sizes, lambda axis, order=order: order if axis == "mlp" else np.arange(sizes[axis])
            )
            if place.weight.stacked:
                tensor[expert] = tensor[twin][np.ix_(*kept)]
            elif place.expert == expert:
                source = tensors[family.name_of(place.key, place.layer, twin)]
                tensors[name] = np.ascontiguousarray(source[np.ix_(*kept)])
            elif place.expert is None and place.weight.has("experts"):
                rows = np.moveaxis(tensor, place.weight.dims.index((("experts",),)), 0)
                rows[expert] = rows[twin]
        if family.model_type == "ernie4_5_moe" and name.endswith("e_score_correction_bias"):
            tensor[:] = 0  # it is added to probabilities, which double where two rows become one
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((teacher / "config.json").read_text())
    config |= dict.fromkeys(family.groups, 1)
    (teacher / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("model_type", MIXTURES)
def test_twins_become_one_without_a_change(tmp_path, model_type: str) -> None:
    # of two active experts, both are the same twice: one active expert of half as many computes the same
    teacher = make_teacher(tmp_path / "teacher", model_type)
    make_twins(teacher)
    scores = score(teacher, tmp_path, collect=("mean", "frequency", "products"))
    options = {"num_experts": 3, "num_experts_per_tok": 1, "merge_experts": "clusters"}
    out = prune(teacher, tmp_path / "out", scores, **options)
    shape = ModelFolder(teacher).shape
    kept = json.loads((out / "kept.json").read_text())["per_layer"][shape.dense_layers :]
    assert all(sorted(map(sorted, row["merged_experts"])) == [[0, 1], [2, 4], [3, 5]] for row in kept)
    assert all([group[0] for group in row["merged_experts"]] == row["experts"] for row in kept)
    torch.testing.assert_close(logits(out), logits(teacher), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "gpt_oss"])
def test_twins_become_one_in_a_student_with_fewer_neurons(tmp_path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    kill(teacher, {"mlp": [np.random.default_rng(i).permutation(24)[:10] for i in range(4)]})
    make_twins(teacher)
    scores = score(teacher, tmp_path, collect=("mean", "frequency", "products"))
    options = {"num_experts": 3, "num_experts_per_tok": 1, "intermediate_size": 14, "merge_experts": "clusters"}
    out = prune(teacher, tmp_path / "out", scores, **options)
    torch.testing.assert_close(logits(out), logits(teacher), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("model_type", MIXTURES)
def test_merged_experts_are_weighted_means(tmp_path, model_type: str, how: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    scores = score(teacher, tmp_path, collect=("mean", "frequency", "products"))
    out = prune(teacher, tmp_path / "out", scores, num_experts=4, merge_experts=how)
    family, shape = ModelFolder(teacher).family, ModelFolder(teacher).shape
    tokens = load_file(scores / "scores.safetensors")["experts.frequency"]
    before, after = (load_file(folder / "model.safetensors") for folder in (teacher, out))
    kept = json.loads((out / "kept.json").read_text())["per_layer"]
    size = shape.num_experts // max(1, shape.expert_groups)
    for name, tensor in after.items():
        place = family.place(name)
        assert place is not None
        if place.layer is None or not (place.expert is not None or place.weight.stacked or place.weight.has("experts")):
            assert tensor.tobytes() == before[name].tobytes()
            continue
        for new, group in enumerate(kept[place.layer]["merged_experts"]):
            assert len({expert // size for expert in group}) == 1  # within what is routed together
            uses = tokens[place.layer, group]
            weights = uses / uses.sum() if uses.sum() else np.full(len(group), 1 / len(group))
            if place.expert is not None:
                if place.expert != new:
                    continue
                found, parts = tensor, [before[family.name_of(place.key, place.layer, expert)] for expert in group]
            else:
                dim = 0 if place.weight.stacked else place.weight.dims.index((("experts",),))
                found, *parts = (np.take(t, i, dim) for t, i in [(tensor, new), *((before[name], e) for e in group)])
            if place.weight.has("mlp"):  # neurons are in another order; the sum over them is the same
                (dim,) = (d for d, dims in enumerate(place.weight.dims) if any("mlp" in one for one in dims))
                found, parts = found.sum(axis=dim), [part.sum(axis=dim) for part in parts]
            expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert logits(out).isfinite().all()


def test_a_rotated_student_has_merged_experts_too(tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "qwen3_moe")
    make_twins(teacher)
    collect = ("mean", "frequency", "products", "covariance", "gradient_covariance")
    scores = score(teacher, tmp_path, collect=collect)
    options = {"hidden_size": 16, "method": "rotate", "num_experts_per_tok": 1}
    merged = prune(teacher, tmp_path / "out", scores, num_experts=3, merge_experts="clusters", **options)
    whole = prune(teacher, tmp_path / "whole", scores, **{**options, "num_experts_per_tok": 2})
    torch.testing.assert_close(logits(merged), logits(whole), rtol=1e-3, atol=1e-3)


def test_merging_needs_experts_that_have_no_place(tmp_path) -> None:
    mixture = ModelFolder(make_teacher(tmp_path / "mixture", "qwen3_moe")).shape
    dense = ModelFolder(make_teacher(tmp_path / "dense", "llama")).shape
    config = PruneConfig(merge_experts="clusters", intermediate_size=8)
    for shape, message in ((mixture, "all 6 experts of a layer stay; set num_experts"), (dense, "has no experts")):
        with pytest.raises(ShapeError, match=message):
            check_cut(config, shape, config.target(shape, "prune"), "prune")
    with pytest.raises(ValueError, match="nest: cannot be combined with merge_experts"):
        PruneConfig(
            nest={"large": {"num_hidden_layers": 3}, "small": {"num_hidden_layers": 2}}, merge_experts="nearest"
        )


def test_merging_without_products_of_outputs_names_what_to_collect(tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "qwen3_moe")
    scores = score(teacher, tmp_path, collect=("mean", "frequency"))
    with pytest.raises(ArtifactError, match=r"add 'products' to `score\.collect`"):
        prune(teacher, tmp_path / "out", scores, num_experts=3, merge_experts="nearest")
    shape = ModelFolder(teacher).shape
    config = PruneConfig(num_experts=3, merge_experts="nearest")
    assert {"products", "frequency"} <= config.statistics(shape, config.target(shape, "prune"))
