import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prunus.errors import ModelError
from prunus.models.checkpoint import INDEX, WEIGHTS, TensorInfo, TensorPlan, read_header, read_tensors, write_tensors
from tests.fuzz import fuzz


def sample() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "a": draw.random((5, 3), dtype=np.float32),
        "b": draw.random(7).astype(np.float16),
        "c": draw.integers(0, 9, (2, 2, 2)),
    }


def copies(tensors: dict[str, TensorInfo]) -> list[TensorPlan]:
    def pieces(info: TensorInfo):
        data = info.file.read_bytes()[info.data : info.data + info.nbytes]
        yield data[:3]
        yield data[3:]

    return [TensorPlan(i.name, i.dtype, i.shape, lambda i=i: pieces(i)) for i in tensors.values()]


def test_what_is_read_and_written_is_what_safetensors_reads(tmp_path: Path) -> None:
    save_file(sample(), tmp_path / WEIGHTS)
    (tmp_path / "out").mkdir()
    write_tensors(tmp_path / "out", copies(read_tensors(tmp_path)))
    again = load_file(tmp_path / "out" / WEIGHTS)
    for name, value in sample().items():
        np.testing.assert_array_equal(again[name], value)


def test_shards_and_index_are_those_that_transformers_expects(tmp_path: Path) -> None:
    save_file(sample(), tmp_path / WEIGHTS)
    out = tmp_path / "out"
    out.mkdir()
    write_tensors(out, copies(read_tensors(tmp_path)), max_shard_bytes=70)
    index = json.loads((out / INDEX).read_text())
    assert len(set(index["weight_map"].values())) == 3
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in sample().values())
    assert set(read_tensors(out)) == set(sample())
    for name, shard in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(out / shard)[name], sample()[name])


def test_pieces_that_do_not_add_up_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="came to 2 bytes, not 12"):
        write_tensors(tmp_path, [TensorPlan("a", "F32", (3,), lambda: iter([b"xx"]))])


@fuzz(200)
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3))
def test_damage_is_reported_and_never_a_crash(tmp_path_factory, cut: int, flips: list[tuple[int, int]]) -> None:
    file = tmp_path_factory.mktemp("damage") / WEIGHTS
    save_file(sample(), file)
    data = bytearray(file.read_bytes()[: len(file.read_bytes()) - cut])
    for place, value in flips:
        if place < len(data):
            data[place] = value
    file.write_bytes(data)
    try:
        for info in read_header(file):
            assert info.data + info.nbytes <= len(data)
    except ModelError as error:
        assert str(file) in str(error)


@fuzz(100)
@given(
    header=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_json_for_a_header_is_refused_and_never_a_crash(tmp_path_factory, header) -> None:
    file = tmp_path_factory.mktemp("header") / WEIGHTS
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    try:
        assert read_header(file) == []
    except ModelError as error:
        assert str(file) in str(error)


def test_missing_weights_are_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are no weights"):
        read_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pickled .*save_pretrained"):
        read_tensors(tmp_path)


def test_an_index_that_names_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    with pytest.raises(ModelError, match="names the shard"):
        read_tensors(tmp_path)
    save_file({"b": np.zeros(2)}, tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match="names a "):
        read_tensors(tmp_path)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(ModelError, match="expected an object"):
        read_tensors(tmp_path)


@fuzz(100)
@given(index=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_for_an_index_is_refused_and_never_a_crash(tmp_path_factory, index) -> None:
    folder = tmp_path_factory.mktemp("index")
    for contents in (index, {"metadata": {}, "weight_map": index}):
        (folder / INDEX).write_text(json.dumps(contents))
        try:
            assert read_tensors(folder) == {}
        except ModelError as error:
            assert str(folder) in str(error)
