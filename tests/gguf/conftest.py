"""Every file of these tests is made in several pieces, as those of real models are."""

import pytest


@pytest.fixture(autouse=True)
def _several_pieces(several_pieces: None) -> None:
    """See `several_pieces`."""
