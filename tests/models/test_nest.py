"""What a nest's files may say, and sizes between those that it has."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prunus.errors import ModelError, ShapeError
from prunus.models.between import between, norms_between, shapes_between
from prunus.models.folder import NEST, NORMS, ModelFolder
from prunus.models.nest import own_norms, read_nest
from tests.cutting import logits, score
from tests.nests import cut, sizes_of, written


@pytest.fixture(scope="module")
def nest(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nest")
    return cut(teacher, folder / "out", score(teacher, folder), nest=sizes_of(teacher))


DAMAGE = {
    "no list": ({"sizes": {}}, "expected a list of at least two"),
    "one size": ({"sizes": [0]}, "expected a list of at least two"),
    "no sizes": ({"sizes": [1, 2]}, "is not a size"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_list_of_sizes_is_refused(nest, tmp_path, what) -> None:
    text, message = DAMAGE[what]
    copy = shutil.copytree(nest, tmp_path / "copy")
    (copy / NEST).write_text(json.dumps(text))
    with pytest.raises(ModelError, match=message):
        read_nest(copy)


@pytest.mark.parametrize(
    ("size", "key", "value", "message"),
    [
        (0, "hidden_size", 8, "its first size is not that of config.json"),
        (1, "hidden_size", 64, "does not nest in large: hidden_size is 64 in medium and 24 in large"),
        (2, "layers", [0, 9], "is not a size"),
        (2, "layers", [0], "is not a size"),
        (2, "name", "../small", "is not a size"),
        (2, "name", "large", "two sizes have one name"),
        (2, "hidden_size", True, "is not a size"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(nest, tmp_path, size, key, value, message) -> None:
    copy = shutil.copytree(nest, tmp_path / "copy")
    sizes = json.loads((copy / NEST).read_text())["sizes"]
    sizes[size][key] = value
    (copy / NEST).write_text(json.dumps({"sizes": sizes}))
    with pytest.raises(ModelError, match=message):
        read_nest(copy)


def test_missing_and_misshapen_norms_are_refused(nest, tmp_path) -> None:
    copy = shutil.copytree(nest, tmp_path / "copy")
    norms = load_file(copy / NORMS)
    save_file({**norms, "small/model.norm.weight": np.ones(3, np.float32)}, copy / NORMS)
    with pytest.raises(ModelError, match=r"small/model.norm.weight is \[3\]; nest.json implies \[16\]"):
        read_nest(copy).norms()
    del norms["small/model.norm.weight"]
    save_file(norms, copy / NORMS)
    with pytest.raises(ModelError, match="small/model.norm.weight is missing"):
        read_nest(copy).norms()
    (copy / NORMS).unlink()
    with pytest.raises(ModelError, match="no nest.safetensors"):
        read_nest(copy).norms()


def test_norms_belong_to_the_fingerprint(nest, tmp_path) -> None:
    copy = shutil.copytree(nest, tmp_path / "copy")
    assert ModelFolder(copy).fingerprint() == ModelFolder(nest).fingerprint()
    norms = load_file(copy / NORMS)
    norms["small/model.norm.weight"][0] += 1
    save_file(norms, copy / NORMS)
    assert ModelFolder(copy).fingerprint() != ModelFolder(nest).fingerprint()


def test_a_size_between_has_gains_between(nest, tmp_path) -> None:
    found = read_nest(nest)
    _, medium, small = found.sizes
    shape = replace(medium.shape, hidden_size=20, num_attention_heads=4, num_key_value_heads=2, intermediate_size=14)
    size = between(found, shape, "cutout")
    assert size.layers == medium.layers
    gain = norms_between(found, size)["model.norm.weight"]
    above, below = (own_norms(found, one)["model.norm.weight"] for one in (medium, small))
    share = (20 - 16) / (24 - 16)
    np.testing.assert_allclose(gain[:16], share * above[:16] + (1 - share) * below, rtol=1e-6)
    np.testing.assert_array_equal(gain[16:], above[16:20])
    folder = written(nest, size, tmp_path / "between")
    assert ModelFolder(folder).shape == shape
    assert logits(folder).isfinite().all()


def test_sizes_outside_are_refused(nest) -> None:
    found = read_nest(nest)
    large, _, small = (size.shape for size in found.sizes)
    with pytest.raises(ShapeError, match="this shape does not nest in large: hidden_size is 32"):
        between(found, replace(large, hidden_size=32), "cutout")
    with pytest.raises(ShapeError, match="small does not nest in this shape: hidden_size is 16 in small and 8"):
        between(found, replace(small, hidden_size=8), "cutout")
    with pytest.raises(ShapeError, match="cannot be shared equally"):
        between(found, replace(large, num_attention_heads=3, num_key_value_heads=2), "cutout")


def test_shapes_between_begin_and_end_with_sizes_and_all_can_be_cut_out(nest) -> None:
    found = read_nest(nest)
    shapes = list(shapes_between(found, 2))
    assert [shapes[0], shapes[-1]] == [found.sizes[0].shape, found.sizes[-1].shape]
    assert len({tuple(shape.dimensions().values()) for shape in shapes}) > 5
    for shape in shapes:
        between(found, shape, "cutout")
