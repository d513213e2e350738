"""Options of distillation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prunus.training.config import TrainingConfig


class DistillConfig(TrainingConfig):
    """Training of the student on what the teacher says of the corpus (knowledge distillation, KD)."""

    kind: ClassVar[str] = "distill"
    revision: ClassVar[int] = 1

    loss: Literal["forward_kl", "cross_entropy"] = "forward_kl"
    """`forward_kl` learns the teacher's distribution (arXiv 2407.14679, table 15: the best of the losses tried);
    `cross_entropy` learns the text alone, as a model trained without a teacher does."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits before the KL; the loss is then multiplied by its square."""
