"""Every folder of these tests is made in several pieces, as those of real models are."""

import pytest


@pytest.fixture(autouse=True)
def _small_pieces(small_pieces: None) -> None:
    """See `small_pieces`."""
