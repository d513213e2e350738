"""Options of evaluation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prunus.config import Seed, StepConfig


class EvaluateConfig(StepConfig):
    """How a model is measured on held-out text, beside its teacher."""

    kind: ClassVar[str] = "evaluate"
    revision: ClassVar[int] = 2

    sequence_length: int = Field(default=2048, ge=2)
    """Longest stretch of one document that is read at once."""
    max_tokens: int = Field(default=1_000_000, ge=2)
    """Stop after so many tokens of the held-out text."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap samples that an interval is read from."""
    prompts: tuple[str, ...] = ()
    """Texts for every model to continue; without any, the openings of held-out documents."""
    prompt_count: int = Field(default=3, ge=0)
    """How many openings to take where `prompts` is empty."""
    prompt_tokens: int = Field(default=24, ge=1)
    """Tokens of such an opening."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Tokens of an answer, at most; decoding is greedy."""
    seed: Seed = 0
    """Seed of the bootstrap."""
