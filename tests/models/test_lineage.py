"""Descent through two cuts, told of the first teacher."""

from pathlib import Path

import numpy as np
import pytest

from prunus.errors import ModelError
from prunus.models.lineage import composed, read_lineage, write_lineage

DRAW = np.random.default_rng(0)
FIRST = np.linalg.qr(DRAW.normal(size=(8, 6)))[0].astype(np.float32)
SECOND = np.linalg.qr(DRAW.normal(size=(6, 4)))[0].astype(np.float32)


def test_a_second_cut_counts_layers_from_the_first_teacher(tmp_path: Path) -> None:
    write_lineage(tmp_path, {"layers": [0, 2, 3, 5], "hidden": list(range(8))}, FIRST)
    kept, basis = composed(
        read_lineage(tmp_path, 8, 6), {"layers": [0, 3], "hidden": list(range(6)), "vocab": [1]}, SECOND
    )
    assert kept == {"layers": [0, 5], "hidden": list(range(6))}
    stream = DRAW.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(stream @ basis, (stream @ FIRST) @ SECOND, rtol=1e-5, atol=1e-6)
    write_lineage(tmp_path, kept, basis)
    assert read_lineage(tmp_path, 8, 6).layers == [0, 5]
    with pytest.raises(ModelError, match="pruned from 8 channels"):
        read_lineage(tmp_path, 6, 4)


def test_channels_that_stayed_as_they_were(tmp_path: Path) -> None:
    write_lineage(tmp_path, {"layers": [1, 2], "hidden": [0, 2, 3, 7]}, None)
    _, basis = composed(read_lineage(tmp_path, 8), {"layers": [0, 1], "hidden": [1, 3]}, None)
    np.testing.assert_array_equal(np.arange(8, dtype=np.float32) @ basis, [2, 7])


@pytest.mark.parametrize(
    "kept", ["", "[]", "{}", '{"layers": [], "hidden": [0]}', '{"layers": [0], "hidden": ["0"]}', '{"layers": [-1]}']
)
def test_a_damaged_record_is_named(tmp_path: Path, kept: str) -> None:
    (tmp_path / "kept.json").write_text(kept)
    with pytest.raises(ModelError, match=r"kept\.json: "):
        read_lineage(tmp_path, 8)


def test_a_damaged_basis_is_named(tmp_path: Path) -> None:
    write_lineage(tmp_path, {"layers": [0], "hidden": [0]}, FIRST)
    file = tmp_path / "basis.safetensors"
    whole = file.read_bytes()
    for damage in (b"", whole[:-1], whole.replace(b'"basis"', b'"other"')):
        file.write_bytes(damage)
        with pytest.raises(ModelError, match=r"basis\.safetensors: "):
            read_lineage(tmp_path, 8)
