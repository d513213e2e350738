"""The family that docs/families.md adds as an example: written to a file as it stands there, it is cut and exported."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig

from prunus.gguf.check import Reference, prove
from prunus.gguf.metadata import check_model, checked_context, model_keys, rounds_activation
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.models import families
from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES, find_families
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model, load_tokenizer
from prunus.models.shape import Shape
from tests.cutting import logits, prune, score
from tests.families import COMMON, SPECIAL, config_of, kill, make_teacher
from tests.steps.unpack.files import folder_of
from tests.tiny import load

PAGE = Path(__file__).parents[3] / "docs/families.md"


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """The example, found as every family is: by a file in the folder of families."""
    indented = PAGE.read_text().split("```python\n")[1].split("   ```")[0]
    (tmp_path / "arcee.py").write_text(textwrap.dedent(indented))
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    found = {one.model_type: one for one in find_families()}
    monkeypatch.setitem(FAMILIES, "arcee", found["arcee"])
    monkeypatch.setitem(SPECIAL, "arcee", {})
    yield found["arcee"]
    sys.modules.pop("prunus.models.families.arcee")


def test_its_table_names_the_checkpoint(family: Family, tmp_path: Path) -> None:
    folder = ModelFolder(make_teacher(tmp_path / "teacher", "arcee"))
    folder.check()
    assert folder.family is family
    stored = {name: value.shape for name, value in load_file(folder.path / "model.safetensors").items()}
    assert dict(folder.shape.tensors()) == stored
    assert type(load(folder.path)).__name__ == family.class_name


def test_its_defaults_are_transformers(family: Family) -> None:
    whole = config_of("arcee").to_dict()
    bare = {key: whole[key] for key in (*COMMON, "model_type") if key != "rms_norm_eps"}
    shape = Shape.from_config(bare, family, "test")
    default = AutoConfig.for_model("arcee").rms_norm_eps
    assert model_keys(bare, shape) == model_keys({**whole, "rms_norm_eps": default}, shape)


def test_cutting_what_is_dead_changes_nothing(family: Family, tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "arcee")
    dead = np.random.default_rng(4)
    kill(teacher, {"mlp": [dead.permutation(24)[:10] for _ in range(4)]})
    student = prune(teacher, tmp_path / "student", score(teacher, tmp_path), intermediate_size=14)
    assert ModelFolder(student).shape.parameters < ModelFolder(teacher).shape.parameters
    torch.testing.assert_close(logits(student), logits(teacher), rtol=1e-11, atol=1e-11)


def test_it_is_exported(family: Family, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    folder = ModelFolder(make_teacher(tmp_path / "teacher", "arcee"))
    check_model(folder.config, folder.shape, "export")
    file = tmp_path / "model.gguf"
    write_gguf(folder, read_vocabulary(folder.path, folder.shape.vocab_size), "gguf-f32", file)
    windows = list(np.random.default_rng(5).integers(3, 300, (2, 48)))
    model = load_model(folder.path, torch.device("cpu"), torch.float32)
    limit = checked_context(folder.config, folder.shape)
    reference = Reference(model, load_tokenizer(folder.path), windows, is_text=False, limit=limit)
    found = prove(file, reference, 8, rounds_activation(family))
    assert found["greedy_tokens_alike"] == 8
    assert found["kl"] < 1e-5
    again = load_file(folder_of(file, tmp_path / "again") / "model.safetensors")
    before = load_file(folder.path / "model.safetensors")
    assert again.keys() == before.keys()
    assert all(np.array_equal(again[name], before[name]) for name in before)
