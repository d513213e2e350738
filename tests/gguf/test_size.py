"""The size of a file before there is one, against the file."""

from pathlib import Path

import pytest

from prunus.gguf.size import FileSizes
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.models.folder import ModelFolder
from tests.families import make_teacher
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")


@pytest.mark.parametrize(
    "format_name", ["gguf-f32", "gguf-bf16", "gguf-q8_0", "gguf-q4_k_m", "gguf-q3_k_m", "gguf-iq4_xs"]
)
def test_the_predicted_size_of_a_students_file_is_exact(format_name: str, tmp_path: Path) -> None:
    teacher = ModelFolder(make_model(tmp_path / "teacher", hidden_size=256, intermediate_size=512, head_dim=32))
    sizes = FileSizes(teacher.path, teacher.config, teacher.shape)
    shapes = [{"num_hidden_layers": 11}, {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 3}]
    for i, changes in enumerate(shapes):  # rows of 200 fit no block; a tenth layer has a longer name
        made = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 32, **changes}
        student = ModelFolder(make_model(tmp_path / f"student-{i}", **made))
        file = tmp_path / f"{i}.gguf"
        write_gguf(student, read_vocabulary(student.path, student.shape.vocab_size), format_name, file)
        assert sizes(format_name, student.shape)[0] == file.stat().st_size


@pytest.mark.parametrize("model_type", ["gemma2", "qwen2", "gpt2", "phi3", "mixtral", "glm4_moe"])
def test_other_families(model_type: str, tmp_path: Path) -> None:
    teacher = ModelFolder(make_teacher(tmp_path / "teacher", model_type))
    file = tmp_path / "model.gguf"
    write_gguf(teacher, read_vocabulary(teacher.path, teacher.shape.vocab_size), "gguf-q8_0", file)
    found = FileSizes(teacher.path, teacher.config, teacher.shape)("gguf-q8_0", teacher.shape)
    assert found[0] == file.stat().st_size
