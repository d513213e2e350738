"""How a student is held to a teacher: the options that distillation and alignment share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.config import Config

Loss = Literal["forward_kl", "reverse_kl", "jensen_shannon", "total_variation", "mse", "cosine", "cross_entropy"]


class GuideConfig(Config):
    """What the student is to do with what its teacher says of every token."""

    loss: Loss = "forward_kl"
    """How the student's distribution is held to the teacher's: `forward_kl` (arXiv 2407.14679, table 15: the best of
    the losses tried), `reverse_kl`, `jensen_shannon`, `total_variation`; `mse` or `cosine` of the logits; or
    `cross_entropy`, which learns the text alone, as a model trained without a teacher does."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits before the softmax; the loss is then multiplied by its square."""
    beta: float = Field(default=0.5, gt=0, lt=1)
    """The teacher's share in the mixture that `jensen_shannon` compares both with."""
    top_k: int | None = Field(default=None, ge=1)
    """Compare the teacher's so many likeliest tokens and the rest as one; with `forward_kl`. All if not given."""
    cross_entropy_weight: float = Field(default=0.0, ge=0)
    """What the text's own cross-entropy is multiplied by, beside the loss."""
    token_weights: Literal["uniform", "teacher_entropy"] = "uniform"
    """Whether all tokens count alike, or each by the entropy of what the teacher says there."""

    @property
    def has_teacher(self) -> bool:
        """Whether there is anything to learn from a teacher."""
        return self.loss != "cross_entropy"

    @model_validator(mode="after")
    def _fit_for_the_loss(self) -> GuideConfig:
        if self.top_k is not None and self.loss != "forward_kl":
            raise ValueError(f"top_k: {self.top_k} is for loss: forward_kl, and this is {self.loss}")
        if self.cross_entropy_weight and not self.has_teacher:
            raise ValueError("cross_entropy_weight: the loss is cross_entropy already")
        if self.token_weights != "uniform" and not self.has_teacher:
            raise ValueError(f"token_weights: {self.token_weights} needs a teacher, and loss: cross_entropy has none")
        return self
