"""Files of importance matrices: what is written is read back, llama.cpp's form, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from prunus.errors import ModelError, RecipeError
from prunus.gguf.imatrix import Sums, check_imatrix, matrix_of, read_imatrix, write_imatrix
from prunus.gguf.tensors import FileTensor
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp import ggml
from prunus.llamacpp.reading import read_gguf
from prunus.models.folder import ModelFolder
from tests.families import make_teacher
from tests.tiny import make_model

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

SUMS = {
    "blk.0.attn_q.weight": Sums(np.array([[2.0, 4.0, 0.0]]), np.array([2.0])),
    "blk.0.ffn_down_exps.weight": Sums(np.array([[3.0, 6.0], [0.0, 0.0]]), np.array([3.0, 0.0])),
}


def test_a_matrix_is_read_as_it_was_written_and_has_llama_cpps_form(tmp_path: Path) -> None:
    file = tmp_path / "imatrix.gguf"
    write_imatrix(SUMS, 5, 128, file)
    found = read_imatrix(file)
    assert list(found) == list(SUMS)
    for name, one in SUMS.items():
        assert np.array_equal(found[name].squares, one.squares)
        assert np.array_equal(found[name].counts, one.counts)
    reader = gguf.GGUFReader(file)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert keys == {
        "general.type": "imatrix",
        "imatrix.datasets": ["corpus"],
        "imatrix.chunk_count": 5,
        "imatrix.chunk_size": 128,
    }
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}  # columns first
    assert shapes["blk.0.ffn_down_exps.weight.in_sum2"] == [2, 2]
    assert shapes["blk.0.ffn_down_exps.weight.counts"] == [1, 2]


def test_means_of_squares_and_ones_for_an_expert_without_tokens() -> None:
    found = matrix_of(SUMS)
    assert found["blk.0.attn_q.weight"].tolist() == [[1, 2, 0]]
    assert found["blk.0.ffn_down_exps.weight"].tolist() == [[1, 2], [1, 1]]


def test_other_files_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = ModelFolder(folder)
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), "gguf-f32", tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"model.gguf: general.type is 'model'; expected an importance matrix"):
        read_imatrix(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="none.gguf: cannot be read: No such file"):
        read_imatrix(tmp_path / "none.gguf")
    (tmp_path / "old.dat").write_bytes(b"\x01\0\0\0\x05\0\0\0blk.0")
    with pytest.raises(ModelError, match=r"old.dat: "):
        read_imatrix(tmp_path / "old.dat")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_impossible_sums_are_refused(value: float, tmp_path: Path) -> None:
    wrong = {"blk.0.attn_q.weight": Sums(np.array([[1.0, value]]), np.array([1.0]))}
    write_imatrix(wrong, 1, 8, tmp_path / "imatrix.gguf")
    with pytest.raises(ModelError, match="expected finite numbers of at least 0"):
        read_imatrix(tmp_path / "imatrix.gguf")


def test_a_matrix_of_another_model_is_refused() -> None:
    check_imatrix(SUMS, [FileTensor("blk.0.attn_q.weight", (8, 3)), FileTensor("token_embd.weight", (8, 3))], "here")
    with pytest.raises(RecipeError, match=r"here: blk.0.attn_q.weight has \[1, 3\] sums; expected \[1, 4\]"):
        check_imatrix(SUMS, [FileTensor("blk.0.attn_q.weight", (8, 4))], "here")
    with pytest.raises(RecipeError, match="here: blk.1.attn_q.weight is missing"):
        check_imatrix(SUMS, [FileTensor("blk.1.attn_q.weight", (8, 3))], "here")


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_columns_are_weighted_as_the_matrix_says(model_type: str, tmp_path: Path, several_pieces: None) -> None:
    """Of stacked experts each has its own importance, however many rows are in memory at a time."""
    folder = make_teacher(tmp_path / "model", model_type)
    model = ModelFolder(folder)
    vocabulary = read_vocabulary(folder, model.shape.vocab_size)
    write_gguf(model, vocabulary, "gguf-f32", tmp_path / "whole.gguf")
    whole, draw = read_gguf(tmp_path / "whole.gguf").tensors, np.random.default_rng(0)
    matrix = {
        name: draw.exponential(size=(one.shape[0] if len(one.shape) == 3 else 1, one.shape[-1])).astype(np.float32)
        for name, one in whole.items()
        if name.startswith("blk.") and "ffn_up" in name  # rows of 32
    }
    write_gguf(model, vocabulary, "gguf-iq4_nl", tmp_path / "weighted.gguf", matrix=matrix)
    found = read_gguf(tmp_path / "weighted.gguf").tensors
    for name, importance in matrix.items():
        values = whole[name].stored().view(np.float32).reshape(len(importance), -1, importance.shape[1])
        own = [ggml.quantise(np.ascontiguousarray(v), ggml.IQ4_NL, i) for v, i in zip(values, importance, strict=True)]
        assert np.array_equal(found[name].stored(), np.concatenate(own))
        plain = [ggml.quantise(np.ascontiguousarray(v), ggml.IQ4_NL) for v in values]
        assert not np.array_equal(np.concatenate(own), np.concatenate(plain))
        errors = [
            float((((ggml.dequantise(data, ggml.IQ4_NL) - v) ** 2) * i).sum())
            for made in (own, plain)
            for data, v, i in zip(made, values, importance, strict=True)
        ]
        assert sum(errors[: len(values)]) < sum(errors[len(values) :])
