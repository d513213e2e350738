"""The options that every training step has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.config import Seed, StepConfig


class OptimizerConfig(StepConfig):
    """How much at a time, and how fast.

    The defaults are those of Llama-3.1-Minitron 4B (arXiv 2408.11796, table 4).
    """

    batch_size: int = Field(default=1152, ge=1)
    """Sequences of one optimiser step, over all devices."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    min_learning_rate: float = Field(default=1e-5, ge=0)
    """Learning rate at the end of the cosine."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw`, or `muon` for the matrices of the layers, with AdamW for embeddings, head and gains; Muon's steps are
    scaled to the size of AdamW's, so learning rates carry over."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on matrices only."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's momentum, Nesterov's kind; lower where there are few steps."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first momentum."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's second momentum."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    seed: Seed = 0
    """Seed of the order of the data."""

    @model_validator(mode="after")
    def _falling(self) -> OptimizerConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate} is above learning_rate = {self.learning_rate}"
            )
        return self


class TrainingConfig(OptimizerConfig):
    """How long, on what of the text."""

    tokens: int = Field(ge=0)
    """Tokens to train on; the corpus is gone through as often as that takes. 0 leaves the step out."""
    sequence_length: int = Field(default=8192, ge=2)
    """Tokens of one sequence."""
    warmup_steps: int = Field(default=40, ge=0)
    """Steps over which the learning rate rises from 0."""
    attend_across_documents: bool = True
    """Whether tokens of a sequence see those of the documents before theirs, as in the papers; otherwise each document
    has positions and attention of its own."""
    learn_prompts: bool = False
    """Whether prompts count for the loss where the text is answers to prompts; of other text all counts."""

    @property
    def steps(self) -> int:
        """Optimiser steps that `tokens` amount to."""
        return self.tokens // (self.batch_size * self.sequence_length)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.tokens and not self.steps:
            need = self.batch_size * self.sequence_length
            raise ValueError(f"tokens: {self.tokens} are less than one step of batch_size x sequence_length = {need}")
        if self.tokens and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} leaves nothing of {self.steps} steps; lower it")
        return self
