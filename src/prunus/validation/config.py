"""Options of validation: figures of a model during its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from prunus.config import Config, Seed
from prunus.data.config import ChatSource


class ValidationConfig(Config):
    """Measure the student during training, on text and questions that it is not trained on.

    Shorthand: the value of `times`.
    """

    times: int = Field(default=0, ge=0)
    """How often to measure: before the first step, then at this many evenly spaced steps, the last of which is the end.
    0: never. The teacher is measured once."""
    max_tokens: int = Field(default=4096, ge=0)
    """Held-out tokens to predict, in windows of the training's `sequence_length`: NLL, and with a teacher KL and top-1
    agreement."""
    prompt_count: int = Field(default=8, ge=0)
    """Held-out documents to continue greedily: repetition, and the share of continuations that do not end."""
    prompt_tokens: int = Field(default=32, ge=1)
    """First tokens of each of these documents, which are the prompt."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest answer, in tokens."""
    tasks: Mapping[str, ChatSource] = Field(default_factory=dict)
    """Conversations with checks (docs/align.md), by a name for each: the model answers their last prompt, greedily and
    `samples` times at temperature 1."""
    items: int = Field(default=16, ge=1)
    """Conversations of each task."""
    samples: int = Field(default=4, ge=0)
    """Sampled answers to each of them, for pass@k: the share of questions of which one of k answers is right."""
    seed: Seed = 0
    """Seed of sampling, the same every time."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A number is `times`."""
        return {"times": raw} if isinstance(raw, int | str) and not isinstance(raw, bool) else raw

    @model_validator(mode="after")
    def _is_used(self) -> ValidationConfig:
        if not self.times and self.tasks:
            raise ValueError("times: missing; the tasks need a number of measurements, such as times: 10")
        if self.times and not (self.max_tokens or self.prompt_count or self.tasks):
            raise ValueError("measures nothing; allowed: max_tokens or prompt_count above 0, or tasks")
        return self

    def steps(self, total: int) -> tuple[int, ...]:
        """The training steps, of `total`, after which to measure; 0 is before the first."""
        return tuple(sorted({0, *(round(total * (i + 1) / self.times) for i in range(self.times))}))
