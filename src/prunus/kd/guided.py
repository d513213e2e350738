"""What losses by a teacher share, whether it stands beside the student or was asked before: weights, text, means.

N tokens, R rows of a block, V vocabulary
"""

from __future__ import annotations

import torch

from prunus.kd.config import GuideConfig
from prunus.kd.divergences import LOSSES
from prunus.models.head import Head
from prunus.training.head import head_loss
from prunus.training.objectives import TEXT, cross_entropy_rows, weighted

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
        sums: What each term of the loss sums to by its name, for the record: the divergence, and `cross_entropy` where
            that is mixed in. Tokens count as `weights` says, without the teacher's entropy; no term is multiplied by
            its weight in the loss, nor the divergence by the square of the temperature.
        labelled: What the weights of tokens with a label sum to.
    """

    def __init__(
        self, config: GuideConfig, like: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> None:
        self.config, self.labels, self.weights = config, labels, weights
        self.counted = torch.zeros((), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        self.labelled = torch.zeros_like(self.counted)
        self.sums: dict[str, torch.Tensor] = {config.loss: torch.zeros_like(self.counted)}
        if config.cross_entropy_weight:
            self.sums[TEXT] = torch.zeros_like(self.counted)

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
        given = None if self.weights is None else self.weights[tokens].to(self.counted.dtype)
        square = self.config.temperature**2 if LOSSES[self.config.loss].scaled else 1.0
        self.sums[self.config.loss] += (losses.sum() if given is None else losses @ given) / square
        if mixed:
            likelihoods = cross_entropy_rows(text, self.labels[tokens])
            losses = losses + mixed * likelihoods
            logits.add_(text, alpha=mixed)
            self.sums[TEXT] += likelihoods.sum() if given is None else likelihoods @ given
            known = self.labels[tokens] >= 0
            self.labelled += known.sum() if given is None else known.to(given.dtype) @ given
        self.counted += len(logits) if weights is None else weights.sum()
        return weighted(losses, logits, weights)


def mean_loss(
    hidden: torch.Tensor, head: Head, tokens: GuidedTokens, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a portion of a batch, and its terms by name: what `sums` has, as means over the tokens that count.

    Args:
        hidden: Of the tokens that count, [N, H].
        head: The student's.
        tokens: Their loss.
        count: All tokens of the portion.
    """
    total = head_loss(hidden, head, tokens)
    share = 1.0 if tokens.weights is None else tokens.weights.sum() / count
    whole = tokens.counted.clamp_min(_NOTHING)
    terms = {name: value / count for name, value in tokens.sums.items()}
    if TEXT in terms:  # a sequence's last token has none
        terms[TEXT] = tokens.sums[TEXT] / tokens.labelled.clamp_min(_NOTHING) * share
    return total / whole * share, terms
