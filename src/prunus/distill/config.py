"""Options of distillation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prunus.training.config import TrainingConfig


class DistillConfig(TrainingConfig):
    """Training of the student on what the teacher says of the corpus (knowledge distillation, KD)."""

    kind: ClassVar[str] = "distill"
    revision: ClassVar[int] = 2

    data: Literal["corpus", "teacher"] = "corpus"
    """What is read: the `corpus`, or what the `teacher` itself wrote, as `generate` says (sequence-level distillation,
    arXiv 1606.07947)."""
    loss: Literal["forward_kl", "cross_entropy"] = "forward_kl"
    """`forward_kl` learns the teacher's distribution (arXiv 2407.14679, table 15: the best of the losses tried);
    `cross_entropy` learns the text alone, as a model trained without a teacher does."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits before the KL; the loss is then multiplied by its square."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """`muon` for the matrices of the layers, with AdamW for embeddings, head and gains, or `adamw` for all (the papers'
    choice); Muon's steps are scaled to the size of AdamW's, so learning rates carry over."""
    states_weight: float = Field(default=1.0, ge=0)
    """What the error of the residual stream is multiplied by at the start, beside the KL: the stream before each layer
    is held to the teacher's, in the basis of the cut. 0 compares logits alone (the papers' choice for width)."""
    states_decay: Literal["linear", "none"] = "linear"
    """Whether that weight falls to 0 at the end, which leaves the last word to the KL."""

    @property
    def compares_states(self) -> bool:
        """Whether states are compared."""
        return self.loss != "cross_entropy" and self.states_weight > 0

    def states_weight_at(self, progress: float) -> float:
        """The weight at a point of training, 0 the start and 1 the end."""
        return self.states_weight * (1 - progress if self.states_decay == "linear" else 1)
