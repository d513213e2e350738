"""Nests: every size of one checkpoint is the student that an ordinary cut to that size gives."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file

from prunus.errors import ArtifactError, ShapeError
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.table import FAMILIES
from prunus.models.folder import NORMS, ModelFolder
from prunus.models.nest import read_nest
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.nest_basis import helmert
from prunus.steps.prune.nest_order import nested_layers
from prunus.steps.prune.step import Inputs, run
from tests.cutting import QUIET, logits, score
from tests.families import make_teacher
from tests.nests import NESTING, cut, sizes_of, written
from tests.tiny import SMALL

COLLECT = ("mean", "l2", "covariance", "gradient_covariance")
ROTATED = [
    name
    for name, family in FAMILIES.items()
    if family.nests
    and family.rotation != "never"
    and not any(family.has_bias(norm) for norm in (*family.norms[0], *family.norms[1]))
]


@pytest.mark.parametrize("model_type", NESTING)
def test_every_size_is_an_ordinary_cut(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    scores, sizes = score(teacher, tmp_path), sizes_of(teacher)
    nest = read_nest(cut(teacher, tmp_path / "nest", scores, nest=sizes))
    assert [size.name for size in nest.sizes] == ["large", "medium", "small"]
    for size in nest.sizes:
        alone = cut(teacher, tmp_path / "alone" / size.name, scores, **sizes[size.name])
        ours = written(tmp_path / "nest", size, tmp_path / "out" / size.name)
        assert ModelFolder(ours).shape == ModelFolder(alone).shape
        torch.testing.assert_close(logits(ours), logits(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name not in NESTING])
def test_mixtures_with_layers_or_experts_of_several_kinds_are_refused(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    config = PruneConfig.model_validate({"nest": sizes_of(teacher)})
    with pytest.raises(ShapeError, match=r"prune\.nest: a nest of a .* is not supported"):
        config.nested(ModelFolder(teacher).shape, "prune")


@pytest.mark.parametrize("model_type", ROTATED)
def test_every_size_is_an_ordinary_rotated_cut(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    shape = ModelFolder(teacher).shape
    tied = shape.flags.get("tie_word_embeddings", False)
    if tied and shape.family.rotation == "untied":
        pytest.skip("this teacher ties its embeddings")
    scores, sizes = score(teacher, tmp_path, collect=COLLECT), sizes_of(teacher)
    nest = read_nest(cut(teacher, tmp_path / "nest", scores, nest=sizes, method="rotate"))
    for size in nest.sizes:
        if tied and size.name != "small":  # only the innermost shell is that of an ordinary cut
            continue
        alone = cut(teacher, tmp_path / "alone" / size.name, scores, method="auto", **sizes[size.name])
        ours = written(tmp_path / "nest", size, tmp_path / "out" / size.name)
        torch.testing.assert_close(logits(ours), logits(alone), rtol=1e-4, atol=1e-4)


def test_helmerts_columns_are_orthonormal_and_those_beyond_a_size_are_constant_in_it() -> None:
    whole = helmert(7)
    np.testing.assert_allclose(whole.T @ whole, np.eye(6), atol=1e-15)
    np.testing.assert_allclose(whole.sum(axis=0), 0, atol=1e-15)
    for size in (2, 4, 6):
        np.testing.assert_allclose(whole[:size, : size - 1], helmert(size), atol=1e-15)
        beyond = whole[:size, size - 1 :]
        np.testing.assert_allclose(beyond, np.broadcast_to(beyond[:1], beyond.shape), atol=1e-15)


@pytest.mark.parametrize("importance", ["block_influence", "random"])
def test_blocks_of_dropped_layers_nest(importance: str) -> None:
    cosines = np.random.default_rng(0).uniform(0.3, 1, size=(9, 9))
    config = PruneConfig(importance={"layers": importance})
    teacher = Shape.from_config({**SMALL, "num_hidden_layers": 8}, LLAMA, "test")
    kept = nested_layers({"cosines": cosines}, teacher, [6, 6, 5, 2], config)
    assert [len(layers) for layers in kept] == [6, 6, 5, 2]
    for large, small in pairwise(kept):
        assert set(small) <= set(large)
        dropped = sorted(set(range(8)) - set(small))
        assert dropped == list(range(dropped[0], dropped[-1] + 1))


@pytest.mark.parametrize("method", ["minitron", "rotate"])
def test_norms_are_fitted_for_every_size_where_that_helps(teacher: Path, corpus: Path, tmp_path: Path, method) -> None:
    scores = score(teacher, tmp_path, collect=COLLECT)
    sizes, heal = sizes_of(teacher), {"samples": 8, "sequence_length": 24}
    words = PruneConfig(nest=sizes, method=method, importance="activation", drop_layers="single", heal=heal)
    tokens, kls = tmp_path / "tokens", {}
    for fit in ("auto", "none"):
        out = tmp_path / fit
        out.mkdir()
        config = words.model_copy(update={"heal": words.heal.model_copy(update={"refit": fit})})
        figures = run(config, Inputs(teacher, scores, tokens), out, Runtime(), QUIET)
        kls[fit] = [figures[key] for key in ("kl", "medium_kl", "small_kl")]
    before, after = (load_file(tmp_path / fit / NORMS) for fit in ("none", "auto"))
    changed = [name for name in before if (before[name] != after[name]).any()]
    assert changed
    for name in changed:  # by one factor
        np.testing.assert_allclose(after[name] / before[name], (after[name] / before[name])[0], rtol=1e-4)
    assert min(after - before for before, after in zip(kls["none"], kls["auto"], strict=True)) < 0


@pytest.mark.parametrize("method", ["minitron", "rotate"])
def test_with_inner_weights_held_the_smallest_size_is_refitted_as_one_of_its_own(
    teacher: Path, corpus: Path, tmp_path: Path, method: str
) -> None:
    scores, sizes = score(teacher, tmp_path, collect=COLLECT), sizes_of(teacher)
    common = {"method": method, "importance": "activation", "drop_layers": "single"}
    fit, folders = {"refit": "all", "samples": 8, "sequence_length": 24}, {}
    held = {"nest": sizes, "heal": {**fit, "inner_weight": 1e9}}
    for name, options in {"held": held, "alone": {**sizes["small"], "heal": fit}}.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        config = PruneConfig.model_validate({**common, **options})
        run(config, Inputs(teacher, scores, tmp_path / "tokens"), folders[name], Runtime(), QUIET)
    nest = read_nest(folders["held"])
    small = written(folders["held"], nest.sizes[-1], tmp_path / "small")
    torch.testing.assert_close(logits(small), logits(folders["alone"]), rtol=1e-3, atol=1e-3)


def test_a_refit_that_moves_inner_weights_brings_the_largest_size_closer_than_one_that_holds_them(
    teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    scores, kls = score(teacher, tmp_path, collect=COLLECT), {}
    for weight in (0.0, 1e9):
        heal = {"refit": "all", "samples": 8, "sequence_length": 24, "inner_weight": weight}
        words = {"nest": sizes_of(teacher), "importance": "activation", "drop_layers": "single", "heal": heal}
        out = tmp_path / f"nest-{weight:g}"
        out.mkdir()
        figures = run(
            PruneConfig.model_validate(words), Inputs(teacher, scores, tmp_path / "tokens"), out, Runtime(), QUIET
        )
        kls[weight] = (figures["kl"], figures["small_kl"])
    assert kls[0.0][0] < kls[1e9][0]
    assert kls[0.0][1] > kls[1e9][1]


def test_a_weight_of_inner_sizes_without_a_nest_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"heal\.inner_weight: 3, but there is one size"):
        PruneConfig(heal={"inner_weight": 3})


def test_a_refit_without_text_is_refused(teacher: Path, tmp_path: Path) -> None:
    scores = score(teacher, tmp_path, collect=COLLECT)
    words = {"nest": sizes_of(teacher), "importance": "activation", "drop_layers": "single", "heal": "all"}
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="heal needs a corpus"):
        run(PruneConfig.model_validate(words), Inputs(teacher, scores), tmp_path / "out", Runtime(), QUIET)
