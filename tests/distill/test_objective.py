"""What distillation minimises, against its parts put together by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.distill.config import DistillConfig
from prunus.distill.losses import forward_kl, stream_error
from prunus.distill.objective import make_objective
from prunus.errors import ModelError
from prunus.models.lineage import Lineage, copy_lineage, read_lineage, write_lineage
from tests.tiny import load, make_model

IDS = torch.arange(2 * 20).reshape(2, 20) % 300


def test_a_stream_error_is_its_formula() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    rows = [
        float(((s - t) ** 2).sum() / (t**2).sum()) for s, t in zip(student.view(6, 5), teacher.view(6, 5), strict=True)
    ]
    assert stream_error(student, teacher).item() == pytest.approx(sum(rows) / 6, rel=1e-6)
    assert stream_error(teacher, teacher).item() == 0


@pytest.mark.parametrize(("decay", "share"), [("linear", 0.75), ("none", 1.0)])
def test_states_are_compared_in_the_basis_of_the_cut(tmp_path: Path, decay: str, share: float) -> None:
    teacher = load(make_model(tmp_path / "teacher"))
    student = load(make_model(tmp_path / "student", seed=1, hidden_size=16, num_hidden_layers=2))
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 16)))[0].astype(np.float32)
    config = DistillConfig(tokens=0, states_weight=2.0, states_decay=decay)
    objective = make_objective(config, teacher, Lineage([0, 3], basis))
    with torch.no_grad():
        found = objective(student, IDS, 0.25).item()
        t, s = (model(IDS, output_hidden_states=True) for model in (teacher, student))
        # the stream before layers 0 and 1 of the student, which were the teacher's 0 and 3
        errors = [
            stream_error(s.hidden_states[j], t.hidden_states[i] @ torch.from_numpy(basis)) for j, i in ((0, 0), (1, 3))
        ]
        expected = forward_kl(s.logits, t.logits) + 2.0 * share * sum(errors) / 2
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_a_student_that_lost_nothing_has_no_loss(tmp_path: Path) -> None:
    teacher = load(make_model(tmp_path / "teacher"))
    whole = Lineage([0, 1, 2, 3], np.eye(32, dtype=np.float32))
    objective = make_objective(DistillConfig(tokens=0), teacher, whole)
    with torch.no_grad():
        assert objective(teacher, IDS, 0.0).item() == pytest.approx(0, abs=1e-6)


def test_weight_0_and_cross_entropy_ask_for_no_states() -> None:
    assert DistillConfig(tokens=0).compares_states
    assert not DistillConfig(tokens=0, states_weight=0).compares_states
    assert not DistillConfig(tokens=0, loss="cross_entropy").compares_states


def test_descent_is_kept_and_handed_on(tmp_path: Path) -> None:
    plain, turned, later = (tmp_path / name for name in ("plain", "turned", "later"))
    for folder in (plain, turned, later):
        folder.mkdir()
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 3)))[0]
    write_lineage(plain, {"layers": [0, 2], "hidden": [1, 4, 6]}, None)
    write_lineage(turned, {"layers": [1], "hidden": list(range(8))}, basis)
    assert read_lineage(plain, 8).layers == [0, 2]
    np.testing.assert_array_equal(read_lineage(plain, 8).basis, np.eye(8)[:, [1, 4, 6]])
    copy_lineage(turned, later)
    np.testing.assert_allclose(read_lineage(later, 8).basis, basis, atol=1e-7)
    with pytest.raises(ModelError, match=r"there is no kept.json.*distill.states_weight must be 0"):
        read_lineage(tmp_path, 8)
    with pytest.raises(ModelError, match="it has channel 6 of its teacher, and this one has 5"):
        read_lineage(plain, 5)
    with pytest.raises(ModelError, match="it was cut from 8 channels, and this teacher has 16"):
        read_lineage(turned, 16)
    with pytest.raises(ModelError, match="it has layer 2 of its teacher, and this one has 2"):
        read_lineage(plain, 8, layers=2)
