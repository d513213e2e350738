"""Options of teacher correction."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prunus.training.config import TrainingConfig


class CorrectConfig(TrainingConfig):
    """Continued training of the teacher on the recipe's corpus (teacher correction, arXiv 2408.11796, section 2)."""

    kind: ClassVar[str] = "correct"
    revision: ClassVar[int] = 2

    rate_share: ClassVar[float] = 0.2  # "a fifth of the teacher's own", arXiv 2408.11796, section 4

    tokens: int = Field(default=0, ge=0)
    """Tokens to train on. 0: leave the teacher unchanged."""
    learning_rate: float = Field(default=0.0, ge=0)
    """Peak learning rate. 0: follows from the model's size: 0.06 / hidden_size, a fifth of a student's."""
