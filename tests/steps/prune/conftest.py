"""Every cut of these tests reads its tensors in several pieces, as those of real models are read."""

import pytest


@pytest.fixture(autouse=True)
def _several_pieces(several_pieces: None) -> None:
    """See `several_pieces`."""
