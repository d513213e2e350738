"""A cut of a real model, with larger tensors than those of tiny models; see `real_model`."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from prunus.models.checkpoint import read_bytes, write_tensors
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.student import student_config
from prunus.models.values import to_float
from prunus.steps.prune.choose import choose
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.rotate import make_rotation, stored_vectors
from tests.real import real_model
from tests.tiny import load

TEXT = torch.arange(100, 164)[None]


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(folder)(TEXT, use_cache=False).logits


@real_model("smollm2-135m-instruct")
def test_a_real_model_in_another_basis_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(wide)
    copy_along(folder, wide)
    teacher = ModelFolder(wide)
    shape = teacher.shape
    draw = np.random.default_rng(0).normal(size=(shape.hidden_size, 2 * shape.hidden_size))
    vector = stored_vectors(lambda name: to_float(read_bytes(teacher.tensors[name]), "F32"), teacher.family)
    rotation = make_rotation(draw @ draw.T, draw @ draw.T, shape, shape.hidden_size, vector)
    config = PruneConfig(method="rotate", importance="random")
    keep = choose({}, shape, shape, config, None)
    out = tmp_path / "out"
    out.mkdir()
    write_tensors(out, cut(teacher.tensors, shape, shape, keep, {}, rotation))
    write_config(out, student_config(teacher.config, shape, shape, keep.layers))
    expected, actual = (logits(place).log_softmax(-1) for place in (wide, out))
    assert (expected.exp() * (expected - actual)).sum(-1).abs().max() < 1e-4
