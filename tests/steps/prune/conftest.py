"""Every cut in these tests reads its tensors in several pieces, as with real models."""

import pytest


@pytest.fixture(autouse=True)
def _several_pieces(several_pieces: None) -> None:
    """See `several_pieces`."""
