"""Options of scoring."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prunus.config import Seed, StepConfig


class ScoreConfig(StepConfig):
    """How much text the importance of layers, channels, heads and neurons is estimated from."""

    kind: ClassVar[str] = "score"
    revision: ClassVar[int] = 2

    samples: int = Field(default=1024, ge=1)
    """Sequences drawn at random from the corpus: the calibration set (arXiv 2407.14679 uses 1024)."""
    sequence_length: int = Field(default=8192, ge=2)
    """Tokens of one of them."""
    seed: Seed = 0
    """Seed of the draw."""
