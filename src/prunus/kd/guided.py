"""What losses by a teacher share, whether it stands beside the student or was asked before: weights, text, means.

N tokens, R rows of a block, V vocabulary
"""

from __future__ import annotations

import torch

from prunus.kd.config import GuideConfig
from prunus.models.head import Head
from prunus.training.head import head_loss
from prunus.training.objectives import cross_entropy_rows, weighted

_NOTHING = 1e-12  # what weights sum to at least: a portion in which nothing counts has a loss of 0


class GuidedTokens:
    """A divergence from a teacher as a `TokenLoss`, mixed with the text's cross-entropy where that is asked for.

    Args:
        config: Loss, temperature, mixture, weights.
        like: A tensor of the type and on the device that work is done in, or of 16 bits where that is in float32.
        labels: The text's next tokens [N]; -100 where there is none.
        weights: [N], or None for all alike.

    Attributes:
        counted: What the weights of all tokens sum to, known when all are through.
        sums: Weighted sums by name: the divergence.
    """

    def __init__(
        self, config: GuideConfig, like: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> None:
        self.config, self.labels, self.weights = config, labels, weights
        self.counted = torch.zeros((), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        self.sums = {config.loss: torch.zeros_like(self.counted)}

    def begin(self, tokens: slice) -> None:
        """See `TokenLoss`."""

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """The divergence of each token [R] of logits [R, V], over which its gradient by them is written."""
        raise NotImplementedError

    def weights_of(self, tokens: slice) -> torch.Tensor | None:
        """What each token counts for, [R]; None where all count alike."""
        return None if self.weights is None else self.weights[tokens].to(self.counted.dtype)

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `TokenLoss`."""
        weights = self.weights_of(tokens)
        mixed = self.config.cross_entropy_weight
        text = logits.clone() if mixed else logits[:0]
        losses = self.divergence(tokens, logits)
        self.sums[self.config.loss] += losses.sum() if weights is None else losses @ weights
        if mixed:
            losses = losses + mixed * cross_entropy_rows(text, self.labels[tokens])
            logits.add_(text, alpha=mixed)
        self.counted += len(logits) if weights is None else weights.sum()
        return weighted(losses, logits, weights)


def mean_loss(
    hidden: torch.Tensor, head: Head, tokens: GuidedTokens, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a portion of a batch, and what was seen of it.

    Args:
        hidden: Of the tokens that count, [N, H].
        head: The student's.
        tokens: Their loss.
        count: All tokens of the portion.
    """
    total = head_loss(hidden, head, tokens)
    share = 1.0 if tokens.weights is None else tokens.weights.sum() / count
    whole = tokens.counted.clamp_min(_NOTHING)
    return total / whole * share, {name: value / whole for name, value in tokens.sums.items()}
