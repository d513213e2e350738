"""Options of teacher correction."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prunus.training.config import TrainingConfig


class CorrectConfig(TrainingConfig):
    """Continued training of the teacher on the recipe's corpus (teacher correction, arXiv 2408.11796, section 2)."""

    kind: ClassVar[str] = "correct"
    revision: ClassVar[int] = 1

    tokens: int = Field(default=0, ge=0)
    """Tokens to train on; 0 takes the teacher as it is."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate: a fifth of the teacher's own, by the paper."""
    min_learning_rate: float = Field(default=2e-6, ge=0)
    """Learning rate at the end of the cosine."""
    warmup_steps: int = Field(default=120, ge=0)
    """Steps over which the learning rate rises from 0."""
