"""Options of scoring."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunus.config import Length, Location, Seed, Size, StepConfig

Statistic = Literal[
    "mean", "l2", "variance", "gradients", "covariance", "gradient_covariance", "lm_loss", "accuracy", "logit_nmse",
    "frequency", "reap", "products",
]  # fmt: skip

GRADIENTS = frozenset({"gradients", "gradient_covariance"})
"""The statistics that need a backward pass."""

_SEQUENCE_LENGTH = 512
_TOKENS_PER_CHANNEL = 64
_MIN_SAMPLES, _MAX_SAMPLES = 64, 1024


class ScoreConfig(StepConfig):
    """How the importance of layers, channels, heads and neurons is estimated."""

    kind: ClassVar[str] = "score"
    revision: ClassVar[int] = 5

    samples: int = Field(default=0, ge=0)
    """Size of the calibration set, in sequences drawn at random from the corpus. 0: follows from the model's size: 64
    tokens per channel of the residual stream, in 64 to 1024 sequences (arXiv 2407.14679 uses 1024)."""
    sequence_length: Length = 0
    """Tokens per sequence. 0: 512, or the model's context if that is shorter."""
    collect: tuple[Statistic, ...] = ("mean", "covariance", "gradient_covariance")
    """Statistics to collect; those that the recipe's students need are added. `mean`, `l2`, `variance`: activations,
    aggregated over the sequence. `gradients`: of the loss by them. `covariance` of the residual stream and
    `gradient_covariance` of the loss by it: for a rotated cut. Only the two with gradients need a backward pass. Of
    models without some layers: `lm_loss`, `accuracy` on `task`, `logit_nmse`. Of experts, in a mixture: `frequency`,
    the tokens routed to each; `reap`, the size of its weighted output; `products`, how much
    the outputs of two experts are alike."""
    blocks: tuple[int, ...] = (1,)
    """Lengths of the blocks of layers to leave out, one block at a time, for `lm_loss`, `accuracy` and `logit_nmse`.
    Lengths that the recipe's students need are added."""
    layer_samples: int = Field(default=64, ge=1)
    """Sequences of the calibration set to run models without some layers on."""
    task: Location | None = None
    """Questions for `accuracy`: a JSONL file of `{context, continuation}`, `{query, choices, gold}` or
    `{context_options, continuation, gold}`."""
    task_items: int = Field(default=200, ge=1)
    """Number of questions to use, from the first on."""
    seed: Seed = 0
    """Seed of the calibration set."""

    def with_defaults(self, size: Size) -> Self:
        """The options with the size of the calibration set filled in for a model of that size."""
        length = self.sequence_length or min(_SEQUENCE_LENGTH, size.context)
        tokens = _TOKENS_PER_CHANNEL * size.hidden_size
        samples = self.samples or min(max(tokens // length, _MIN_SAMPLES), _MAX_SAMPLES)
        return self.model_copy(update={"sequence_length": length, "samples": samples})

    @model_validator(mode="after")
    def _consistent(self) -> ScoreConfig:
        if "accuracy" in self.collect and self.task is None:
            raise ValueError("task: missing; `accuracy` needs a file of questions")
        if any(block < 1 for block in self.blocks):
            raise ValueError(f"blocks: {list(self.blocks)}; a block has at least 1 layer")
        return self
