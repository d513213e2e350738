"""Options of scoring."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import Path, Seed, StepConfig

Statistic = Literal[
    "mean", "l2", "variance", "gradients", "covariance", "gradient_covariance", "lm_loss", "accuracy", "logit_nmse"
]

GRADIENTS = frozenset({"gradients", "gradient_covariance"})
"""Those that take a backward pass."""


class ScoreConfig(StepConfig):
    """What the importance of layers, channels, heads and neurons is estimated from."""

    kind: ClassVar[str] = "score"
    revision: ClassVar[int] = 5

    samples: int = Field(default=1024, ge=1)
    """Sequences drawn at random from the corpus: the calibration set (arXiv 2407.14679 uses 1024)."""
    sequence_length: int = Field(default=8192, ge=2)
    """Tokens of one of them."""
    collect: tuple[Statistic, ...] = ("mean", "covariance", "gradient_covariance")
    """Statistics to collect: activations by their `mean`, `l2` or `variance` over the sequence; `gradients` of the loss
    by them; the `covariance` of the residual stream and the `gradient_covariance` of the loss by it, for a rotated cut
    (either of gradients takes one backward pass); and of layers the `lm_loss`, the `accuracy` on `task`, or the
    `logit_nmse` without them. What a recipe's students ask for is added."""
    blocks: tuple[int, ...] = (1,)
    """Lengths of the blocks of layers that are left out in turn for `lm_loss`, `accuracy` and `logit_nmse`. Those
    that a recipe's students drop are added."""
    layer_samples: int = Field(default=64, ge=1)
    """Sequences of the calibration set that models without some of their layers are run on."""
    task: Path | None = None
    """Questions for `accuracy`: a JSONL file of `{context, continuation}`, `{query, choices, gold}` or
    `{context_options, continuation, gold}`."""
    task_items: int = Field(default=200, ge=1)
    """How many of them to ask, from the first on."""
    seed: Seed = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _consistent(self) -> ScoreConfig:
        if "accuracy" in self.collect and self.task is None:
            raise ValueError("task: missing; `accuracy` needs questions to ask")
        if any(block < 1 for block in self.blocks):
            raise ValueError(f"blocks: {list(self.blocks)}; a block has at least 1 layer")
        return self
