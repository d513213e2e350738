"""Real data that lies beside the repository, or where PRUNUS_REAL_DATA says; tests that lean on it skip without it."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("PRUNUS_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real(path: str) -> pytest.MarkDecorator:
    """Skip a test where this part of the data is not."""
    return pytest.mark.skipif(not (DATA / path).exists(), reason=f"the real data has no {path}")


def real_model(name: str) -> pytest.MarkDecorator:
    """Give a test the folder of a real model, of those in the folder that PRUNUS_REAL_MODELS names; skip it without."""
    folder = Path(os.environ.get("PRUNUS_REAL_MODELS", "/nonexistent")) / name
    missing = pytest.mark.skipif(not folder.is_dir(), reason=f"PRUNUS_REAL_MODELS has no {name}")
    return pytest.mark.parametrize("folder", [pytest.param(folder, marks=[missing, pytest.mark.real_model], id=name)])
