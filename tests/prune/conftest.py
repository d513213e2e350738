"""Every cut of these tests reads its tensors in several pieces, as those of real models are read."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _small_pieces() -> Iterator[None]:
    """Two or three rows of a tiny model at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunus.prune.cut.PIECE_BYTES", 300)
        yield
