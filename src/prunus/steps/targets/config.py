"""Options of cached targets: which of the teacher's predictions are stored."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prunus.config import Config, Seed, StepConfig


class KeptConfig(Config):
    """What to store of the teacher's distribution at each position, for `distill.targets: cached`."""

    keep: Literal["top_k", "samples"] = "top_k"
    """`top_k`: the most likely tokens with their probabilities, and the remaining mass as one bucket. `samples`: tokens
    drawn from the teacher, with equal weights; the gradient is unbiased (arXiv 2503.16870)."""
    count: int = Field(default=64, ge=1)
    """Tokens to store, or to draw, per position; `top_k` stores at most the whole vocabulary."""


class TargetsConfig(KeptConfig, StepConfig):
    """What to store, and of which sequences. The plan copies the other options from the students."""

    kind: ClassVar[str] = "targets"
    revision: ClassVar[int] = 1

    temperature: float = Field(default=1.0, gt=0)
    """Divides the teacher's logits before the softmax."""
    sequence_length: int = Field(ge=2)
    """Tokens per sequence."""
    sequences: int = Field(ge=1)
    """Sequences that training reads, counting repeats. Each is stored once."""
    attend_across_documents: bool = True
    """Let tokens attend to earlier documents of the same sequence."""
    seed: Seed = 0
    """Seed of the order of the data, and of sampling."""
