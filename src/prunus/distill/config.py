"""Options of distillation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import Config
from prunus.training.config import TrainingConfig


class StatesConfig(Config):
    """The residual stream before each of the student's layers is held to the teacher's, in the basis of the cut."""

    weight: float = Field(default=1.0, gt=0)
    """What the error, relative to the stream's own size, is multiplied by at the start, beside the KL."""
    decay: Literal["linear", "none"] = "linear"
    """Whether the weight falls to 0 at the end, which leaves the last word to the KL."""

    def weight_at(self, progress: float) -> float:
        """The weight at a point of training, 0 the start and 1 the end."""
        return self.weight * (1 - progress if self.decay == "linear" else 1)


class DistillConfig(TrainingConfig):
    """Training of the student on what the teacher says of the corpus (knowledge distillation, KD)."""

    kind: ClassVar[str] = "distill"
    revision: ClassVar[int] = 1

    loss: Literal["forward_kl", "cross_entropy"] = "forward_kl"
    """`forward_kl` learns the teacher's distribution (arXiv 2407.14679, table 15: the best of the losses tried);
    `cross_entropy` learns the text alone, as a model trained without a teacher does."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits before the KL; the loss is then multiplied by its square."""
    states: StatesConfig | None = None
    """Compare states too, for students that were cut from their teacher; not done if not given."""

    @model_validator(mode="after")
    def _states_need_a_teacher(self) -> DistillConfig:
        if self.states is not None and self.loss == "cross_entropy":
            raise ValueError("states: cross_entropy has no teacher to compare them with; leave them out")
        return self
