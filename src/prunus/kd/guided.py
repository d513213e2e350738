"""The common part of losses with online and with cached targets: weights, cross-entropy of the text, means.

N tokens, R rows of a block, V vocabulary
"""

from __future__ import annotations

import torch

from prunus.kd.config import GuideConfig
from prunus.kd.divergences import LOSSES
from prunus.models.head import Head
from prunus.training.head import head_loss
from prunus.training.objectives import TEXT, cross_entropy_rows, weighted

_MIN_SUM = 1e-12  # lower bound of the sum of weights, so that a micro-batch without weights has a loss of 0


class GuidedTokens:
    """The divergence from a teacher as a `TokenLoss`, optionally mixed with the text's cross-entropy.

    Args:
        config: Loss, temperature, mixture, weights.
        like: A tensor whose device and dtype the accumulators follow (16 bits widen to float32).
        labels: The next tokens of the text [N]; -100 where there is none.
        weights: Token weights [N]; None for equal weights.

    Attributes:
        weight_sum: The sum of all tokens' weights, after all chunks.
        sums: The sum of each term of the loss, by name, for the record: the divergence, and `cross_entropy` if it is
            mixed in. Tokens are weighted by `weights`, without the teacher's entropy. No term is multiplied by its
            coefficient in the loss, nor the divergence by the square of the temperature.
        labelled: The sum of the weights of tokens with a label.
    """

    def __init__(
        self, config: GuideConfig, like: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> None:
        self.config, self.labels, self.weights = config, labels, weights
        self.weight_sum = torch.zeros((), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        self.labelled = torch.zeros_like(self.weight_sum)
        self.sums: dict[str, torch.Tensor] = {config.loss: torch.zeros_like(self.weight_sum)}
        if config.cross_entropy_weight:
            self.sums[TEXT] = torch.zeros_like(self.weight_sum)

    def begin(self, tokens: slice) -> None:
        """See `TokenLoss`."""

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """The divergence of each token [R]; overwrites the logits [R, V] with its gradient."""
        raise NotImplementedError

    def weights_of(self, tokens: slice) -> torch.Tensor | None:
        """The weight of each token, [R]; None for equal weights."""
        return None if self.weights is None else self.weights[tokens].to(self.weight_sum.dtype)

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `TokenLoss`."""
        weights = self.weights_of(tokens)
        mixed = self.config.cross_entropy_weight
        text = logits.clone() if mixed else logits[:0]
        losses = self.divergence(tokens, logits)
        given = None if self.weights is None else self.weights[tokens].to(self.weight_sum.dtype)
        square = self.config.temperature**2 if LOSSES[self.config.loss].scaled else 1.0
        self.sums[self.config.loss] += (losses.sum() if given is None else losses @ given) / square
        if mixed:
            likelihoods = cross_entropy_rows(text, self.labels[tokens])
            losses = losses + mixed * likelihoods
            logits.add_(text, alpha=mixed)
            self.sums[TEXT] += likelihoods.sum() if given is None else likelihoods @ given
            known = self.labels[tokens] >= 0
            self.labelled += known.sum() if given is None else known.to(given.dtype) @ given
        self.weight_sum += len(logits) if weights is None else weights.sum()
        return weighted(losses, logits, weights)


def mean_loss(
    hidden: torch.Tensor, head: Head, tokens: GuidedTokens, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a micro-batch, and its terms by name: `sums` as means over the tokens with a weight.

    Args:
        hidden: Hidden states of the tokens with a weight, [N, H].
        head: The student's head.
        tokens: The loss of these tokens.
        count: The number of all tokens in the micro-batch.
    """
    total = head_loss(hidden, head, tokens)
    share = 1.0 if tokens.weights is None else tokens.weights.sum() / count
    whole = tokens.weight_sum.clamp_min(_MIN_SUM)
    terms = {name: value / count for name, value in tokens.sums.items()}
    if TEXT in terms:  # a sequence's last token has no label
        terms[TEXT] = tokens.sums[TEXT] / tokens.labelled.clamp_min(_MIN_SUM) * share
    return total / whole * share, terms
