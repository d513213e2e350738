"""Distillation from stored targets: the teacher ran beforehand and is not in memory.

N tokens, R rows of a block, V vocabulary, K stored tokens
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prunus.kd.guided import GuidedTokens, mean_loss
from prunus.kd.kernels import sparse_forward_kl_rows
from prunus.models.head import read_head
from prunus.steps.distill.config import DistillConfig
from prunus.training.objectives import Objective, next_tokens, with_weight


class CachedDistillation(Objective):
    """The loss of a student against its teacher's stored targets.

    Args:
        student: The model that is trained.
        config: The options.
    """

    def __init__(self, student: PreTrainedModel, config: DistillConfig) -> None:
        super().__init__(student)
        self.options = config  # `config` would be taken for a model's

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
        target_ids: torch.Tensor | None = None,
        target_log_probabilities: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Objective`.

        Args:
            input_ids: See `Objective`.
            weights: See `Objective`.
            position_ids: See `Objective`.
            progress: See `Objective`.
            target_ids: The stored tokens, [B, S, K].
            target_log_probabilities: The log-probability of each stored token, and last that of all other tokens
                together, [B, S, K + 1]; None if the tokens were sampled.
        """
        assert target_ids is not None  # `train` adds them to every sequence
        output = self.model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False)
        rows = [output.last_hidden_state.flatten(0, 1), next_tokens(input_ids).flatten(), target_ids.flatten(0, 1)]
        if target_log_probabilities is not None:
            rows.append(target_log_probabilities.flatten(0, 1))
        token_weights, (hidden, labels, *targets) = with_weight(weights, *rows)
        tokens = CachedTokens(self.options, hidden, labels, token_weights, *targets)
        loss, self.figures = mean_loss(hidden, read_head(self.model), tokens, input_ids.numel())
        return loss


class CachedTokens(GuidedTokens):
    """Forward KL to the stored targets, as a `TokenLoss`.

    Args:
        config: See `GuidedTokens`.
        like: See `GuidedTokens`.
        labels: See `GuidedTokens`.
        weights: See `GuidedTokens`.
        ids: The stored tokens, [N, K].
        log_probabilities: The log-probability of each stored token, and last that of all other tokens together,
            [N, K + 1]; None if the tokens were sampled, so that each counts 1 / K.
    """

    def __init__(
        self,
        config: DistillConfig,
        like: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor | None,
        ids: torch.Tensor,
        log_probabilities: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, like, labels, weights)
        self.ids, self.log_probabilities = ids, log_probabilities

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `GuidedTokens`."""
        ids = self.ids[tokens].long()
        if self.log_probabilities is None:
            probabilities = logits.new_full(ids.shape, 1 / ids.shape[-1])
        else:
            probabilities = kept_probabilities(self.log_probabilities[tokens].to(logits.dtype))
        return sparse_forward_kl_rows(logits, ids, probabilities, self.config.temperature)


def kept_probabilities(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities of the stored tokens: log-probabilities [R, K + 1] to [R, K].

    Scaled so that they and the probability of all other tokens sum to 1 despite the rounding of stored values.
    """
    kept, rest = log_probabilities[:, :-1].exp(), log_probabilities[:, -1:].exp()
    return kept * ((1 - rest) / kept.sum(dim=-1, keepdim=True))
