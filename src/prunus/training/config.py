"""The options common to all training steps."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunus.config import ADDED, Config, Length, Seed, Size, StepConfig, parse
from prunus.training import pace


class LoraConfig(Config):
    """Train low-rank updates of the layers' linear modules instead of all weights (LoRA, arXiv 2106.09685).

    Shorthand: the value of `r`.
    """

    r: int = Field(default=0, ge=0)
    """Rank of the updates, such as 64. 0: train all weights."""
    alpha: float = Field(default=0.0, ge=0)
    """Updates are multiplied by alpha / r. 0: the same as `r`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the inputs of the updates."""
    keep_adapter: bool = False
    """Also write the updates by themselves, to `adapter/`, in peft's format."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A number is the rank."""
        return {"r": raw} if isinstance(raw, int | str) and not isinstance(raw, bool) else raw

    @model_validator(mode="after")
    def _has_rank(self) -> LoraConfig:
        if not self.r and (self.alpha or self.dropout or self.keep_adapter):
            raise ValueError("r: missing; the other options of lora need a rank, such as r: 64")
        return self


class OptimizerConfig(StepConfig):
    """Batch size, learning rate and optimiser."""

    batch_size: int = Field(default=0, ge=0)
    """Sequences per optimiser step, over all devices. 0: follows from `tokens` and the model's size: 660 tokens per
    step for a run of 100 thousand, 2,048 for one of 500 thousand, 400 thousand for one of a billion; at least the
    hidden size."""
    learning_rate: float = Field(default=0.0, ge=0)
    """Peak learning rate. 0: follows from the model's size: 0.3 / hidden_size for a student with half of its teacher's
    parameters (1e-4 at 3072, as in arXiv 2408.11796), down to a tenth of that for one that is closer to its teacher.
    With `lora`, ten times that."""
    min_learning_rate: float | None = Field(default=None, ge=0)
    """Learning rate at the end of the cosine schedule. If unset: a tenth of the peak."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """`adamw`; `adamw_8bit`, the same with moments in 8 bits (arXiv 2110.02861, by torchao): 2 bytes for each parameter
    instead of 8; or `muon` for the matrices of the layers, with AdamW for embeddings, head and gains. Muon's updates
    are scaled to the size of AdamW's, so learning rates carry over."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, applied to matrices only."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Nesterov momentum of Muon. Lower it for runs of few steps."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's β1, the decay of the first moment."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's β2, the decay of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping: the largest norm of the gradients."""
    lora: Annotated[LoraConfig, ADDED] = LoraConfig()
    """Train low-rank updates (LoRA) instead of all weights, and merge them into the model at the end. Gradients and
    optimizer state then exist for the updates alone."""
    seed: Seed = 0
    """Seed of the order of the data."""

    @model_validator(mode="after")
    def _falling(self) -> OptimizerConfig:
        if self.learning_rate and self.min_learning_rate is not None and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate} is above learning_rate = {self.learning_rate}"
            )
        return self

    @property
    def min_rate_share(self) -> float:
        """The learning rate at the end of the cosine, as a fraction of the peak."""
        return 0.1 if self.min_learning_rate is None else self.min_learning_rate / self.learning_rate


class TrainingConfig(OptimizerConfig):
    """How long to train, and on which part of the text."""

    rate_share: ClassVar[float] = 1.0
    """The default learning rate, as a fraction of a student's in distillation."""

    tokens: int = Field(ge=0)
    """Tokens to train on; the corpus is repeated as often as needed. 0: skip the step."""
    sequence_length: Length = 0
    """Tokens per sequence. 0: follows from `tokens` and the model's context: 256 for 500 thousand tokens, 8192 for 100
    million."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Warm-up: steps over which the learning rate rises from 0. If unset: a twentieth of all steps, at most 40."""
    attend_across_documents: bool = True
    """Let tokens attend to earlier documents of the same sequence, as in the papers. If false, each document has its
    own positions and attention."""
    learn_prompts: bool = False
    """Include prompt tokens in the loss. Applies to prompt-answer data only; in other text all tokens count."""

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.tokens // (self.batch_size * self.sequence_length)

    @property
    def resolved_warmup(self) -> int:
        """Warm-up steps: `warmup_steps`, or their default."""
        return pace.warmup_steps(self.steps) if self.warmup_steps is None else self.warmup_steps

    def with_defaults(self, size: Size) -> Self:
        """A copy in which unset batch size, sequence length and learning rate are derived from `tokens` and `size`.

        Raises:
            RecipeError: The given options leave no step.
        """
        if not self.tokens:
            return self
        batch = {"batch_size": self.batch_size} if self.batch_size else {}
        length = self.sequence_length or pace.sequence_length(self.tokens, size.hidden_size, size.context, **batch)
        rate = pace.learning_rate(size.hidden_size, size.cut) * self.rate_share * pace.lora_factor(self.lora.r)
        chosen = {
            "batch_size": self.batch_size or pace.batch_size(self.tokens, size.hidden_size, length),
            "sequence_length": length,
            "learning_rate": self.learning_rate or max(pace.round_rate(rate), self.min_learning_rate or 0),
        }
        return parse(type(self), {**self.model_dump(), **chosen}, self.kind)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if not (self.tokens and self.batch_size and self.sequence_length):
            return self
        if not self.steps:
            need = self.batch_size * self.sequence_length
            raise ValueError(f"tokens: {self.tokens} are less than one step of batch_size x sequence_length = {need}")
        if self.resolved_warmup >= self.steps:
            raise ValueError(f"warmup_steps: {self.resolved_warmup} leaves nothing of {self.steps} steps; lower it")
        return self
