"""Files against those of llama.cpp's own `llama_model_quantize`, tensor by tensor, byte by byte.

PRUNUS_LLAMA_CPP names a folder of llama.cpp's shared libraries, such as those of the npm package
`@node-llama-cpp/linux-x64`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunus.gguf.mixtures import FILE_TYPES, NEED_MATRIX, QUANTISED, may_shrink
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import Matrix, write_gguf
from prunus.llamacpp.reading import read_gguf
from prunus.models.folder import ModelFolder
from tests.families import make_teacher
from tests.gguf import quantiser
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
LIBRARIES = os.environ.get("PRUNUS_LLAMA_CPP", "")
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="PRUNUS_LLAMA_CPP names no folder of llama.cpp's libraries")

WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
SHAPES = {
    "grouped, untied": {**WIDE, "num_hidden_layers": 9, "num_key_value_heads": 1, "num_attention_heads": 4},
    "tied": {**WIDE, "num_hidden_layers": 2, "tie_word_embeddings": True},
    "rows that fit blocks of 32": {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 9, "head_dim": 32},
    "rows that fit no block": {"hidden_size": 72, "intermediate_size": 200, "num_hidden_layers": 2},
}


def random_matrix(model: ModelFolder, file: Path) -> Matrix:
    draw = np.random.default_rng(1)
    sizes = {name: one.shape for name, one in read_gguf(file).tensors.items() if name.startswith("blk.")}
    return {
        name: draw.exponential(size=(size[0] if len(size) == 3 else 1, size[-1])).astype(np.float32)
        for name, size in sizes.items()
        if may_shrink(name, len(size))
    }


def compare(model: ModelFolder, place: Path, formats: tuple[str, ...], weighted: bool) -> None:
    vocabulary = read_vocabulary(model.path, model.shape.vocab_size)
    whole = place / "whole.gguf"
    write_gguf(model, vocabulary, "gguf-f32", whole)
    matrix = random_matrix(model, whole) if weighted else None
    if matrix is not None:
        np.savez(place / "matrix.npz", **matrix)
    for name in formats:
        ours, theirs = place / "ours.gguf", place / "theirs.gguf"
        write_gguf(model, vocabulary, name, ours, matrix=matrix)
        arguments = [LIBRARIES, whole, theirs, FILE_TYPES[name], *([place / "matrix.npz"] if weighted else [])]
        command = [sys.executable, quantiser.__file__, *map(str, arguments)]
        made = subprocess.run(command, check=False, capture_output=True)
        assert made.returncode == 0, made.stderr[-2000:]
        mine, other = read_gguf(ours).tensors, read_gguf(theirs).tensors
        assert {key: one.type_name for key, one in mine.items()} == {k: one.type_name for k, one in other.items()}, name
        for key, one in mine.items():
            assert np.array_equal(one.stored(), other[key].stored()), (name, key)


@pytest.mark.parametrize("weighted", [False, True], ids=["without a matrix", "with a matrix"])
@pytest.mark.parametrize("case", SHAPES)
def test_files_are_llama_cpps_own(case: str, weighted: bool, tmp_path: Path) -> None:
    model = ModelFolder(make_model(tmp_path / "model", **SHAPES[case]))
    compare(model, tmp_path, (*QUANTISED, *NEED_MATRIX) if weighted else QUANTISED, weighted)


@pytest.mark.parametrize("model_type", ["mixtral", "glm4_moe", "gpt2", "phi3", "falcon"])
def test_other_families(model_type: str, tmp_path: Path) -> None:
    model = ModelFolder(make_teacher(tmp_path / "model", model_type))
    compare(model, tmp_path, ("gguf-q4_k_m", "gguf-q3_k_m", "gguf-iq4_xs", "gguf-iq2_m"), True)
