"""Options of offline targets: what is kept of what the teacher says."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prunus.config import Config, Seed, StepConfig


class KeptConfig(Config):
    """What is kept of the teacher's distribution at each position, for students with `distill.targets: cached`."""

    keep: Literal["top_k", "samples"] = "top_k"
    """The likeliest tokens with their probabilities and the rest as one (`top_k`), or tokens drawn from the teacher,
    each of which counts alike (`samples`, whose gradient is right on average: arXiv 2503.16870)."""
    count: int = Field(default=64, ge=1)
    """Tokens kept, or drawn, a position; of `top_k` all if the vocabulary has fewer."""


class TargetsConfig(KeptConfig, StepConfig):
    """What is kept, and of what: the rest of the options is the students', and the plan copies it in."""

    kind: ClassVar[str] = "targets"
    revision: ClassVar[int] = 1

    temperature: float = Field(default=1.0, gt=0)
    """Divides the teacher's logits before the softmax."""
    sequence_length: int = Field(ge=2)
    """Tokens of one sequence."""
    sequences: int = Field(ge=1)
    """Sequences that training reads, one read twice counted twice; each is kept once."""
    attend_across_documents: bool = True
    """Whether tokens of a sequence see those of the documents before theirs."""
    seed: Seed = 0
    """Seed of the order of the data, and of every draw."""
