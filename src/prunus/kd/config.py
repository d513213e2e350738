"""Options of the loss between student and teacher, which distillation and alignment share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.config import Config

Loss = Literal["forward_kl", "reverse_kl", "jensen_shannon", "total_variation", "mse", "cosine", "cross_entropy"]


class GuideConfig(Config):
    """The per-token loss between student and teacher."""

    loss: Loss = "forward_kl"
    """Distillation loss between the two distributions: `forward_kl` (best of those tried in arXiv 2407.14679, table
    15), `reverse_kl`, `jensen_shannon`, `total_variation`; `mse` or `cosine` of the logits; or `cross_entropy` on the
    text alone, without a teacher."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits before the softmax. The loss is multiplied by its square."""
    beta: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher in the mixture of `jensen_shannon`."""
    top_k: int | None = Field(default=None, ge=1)
    """Use only the teacher's `top_k` most likely tokens; the remaining mass forms one bucket. For `forward_kl`. If
    unset: all tokens."""
    cross_entropy_weight: float = Field(default=0.0, ge=0)
    """Weight of the text's cross-entropy, added to the loss."""
    token_weights: Literal["uniform", "teacher_entropy"] = "uniform"
    """`uniform`, or weight each token by the entropy of the teacher's prediction there (`teacher_entropy`)."""

    @property
    def has_teacher(self) -> bool:
        """Whether the loss needs a teacher."""
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
