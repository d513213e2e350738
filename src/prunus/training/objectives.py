"""Training objectives: modules that hold a model and whose `forward` is the loss, so that wrappers cover both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from prunus.console import Console
from prunus.models.head import check_head, read_head
from prunus.runtime import Runtime
from prunus.training.head import head_loss

TEXT = "cross_entropy"
"""The name of the text's cross-entropy among the terms of a loss."""


class Objective(nn.Module):
    """A model and its loss.

    Attributes:
        model: The trained model.
        figures: Scalars of the last micro-batch for the record, by name; first the terms of its loss. A term is not
            multiplied by its coefficient in the loss; its mean over a batch's micro-batches is the batch's.
        has_head: Whether the model has an LM head.
    """

    has_head = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        if self.has_head:
            check_head(model)
        self.figures: dict[str, torch.Tensor] = {}
        self.is_distributed_loading_by_transformers = False  # set when its weights are sharded; read by the Trainer

    @property
    def companions(self) -> list[nn.Module]:
        """Frozen modules, such as a teacher, which are moved or sharded together with it."""
        return []

    def compile_loss(self, tokens: int, runtime: Runtime, console: Console) -> None:
        """Compile the loss, if `runtime.compile` says so, before training on `tokens` tokens; this base does nothing.

        Raises:
            TrainingError: Compilation is required and fails.
        """

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """The loss of a micro-batch.

        Args:
            input_ids: [B, S].
            weights: The weight of each position's loss, [B, S], with mean 1 over the batch; None for equal weights.
            position_ids: [B, S], restarting at 0 in each document; None if attention crosses documents.
            progress: The fraction of training that is done, 0 to 1.

        Returns:
            A scalar whose mean over the micro-batches of a batch is the batch's loss.
        """
        raise NotImplementedError


class CrossEntropy(Objective):
    """Next-token cross-entropy in nats."""

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """See `Objective`; the last token of a sequence has no label."""
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        labels = next_tokens(input_ids)
        if weights is None:
            hidden, labels, count = hidden[:, :-1], labels[:, :-1], labels[:, :-1].numel()
        else:
            count = weights.numel()
        chosen, (hidden, labels) = with_weight(weights, hidden.flatten(0, 1), labels.flatten())
        loss = head_loss(hidden, read_head(self.model), NextToken(labels, chosen)) / count
        self.figures = {TEXT: loss.detach()}
        return loss


class NextToken:
    """Cross-entropy as a `TokenLoss`.

    Args:
        labels: The next token of each, [N]; -100 where there is none.
        weights: Token weights [N]; None for equal weights.
    """

    def __init__(self, labels: torch.Tensor, weights: torch.Tensor | None) -> None:
        self.labels, self.weights = labels, weights

    def begin(self, tokens: slice) -> None:
        """Nothing to prepare."""

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `TokenLoss`."""
        losses = cross_entropy_rows(logits, self.labels[tokens])
        return weighted(losses, logits, None if self.weights is None else self.weights[tokens])


def weighted(losses: torch.Tensor, gradient: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Multiply losses [R], and in place their gradient [R, V], by weights [R]; unchanged without weights."""
    if weights is None:
        return losses
    gradient.mul_(weights[:, None])
    return losses * weights


def cross_entropy_rows(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of logits [R, V]; overwrites them with its gradient dz = p_s - 1[v = label].

    Rows whose label is -100 have no loss and no gradient.
    """
    known = labels >= 0
    at = labels.clamp_min(0)[:, None]
    log_s = F.log_softmax(student, dim=-1)
    torch.exp(log_s, out=student)
    student.scatter_add_(-1, at, torch.full_like(at, -1, dtype=student.dtype))
    student.mul_(known[:, None])
    return torch.where(known, -log_s.gather(-1, at).squeeze(-1), 0)


def next_tokens(input_ids: torch.Tensor) -> torch.Tensor:
    """The labels [B, S] of token ids [B, S]: the next token, and -100 for the last."""
    return F.pad(input_ids[:, 1:], (0, 1), value=-100)


def with_weight(weights: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Drop zero-weight positions before the LM-head matmul, from weights [B, S] and tensors [B * S, ...]."""
    if weights is None:
        return None, list(tensors)
    chosen = weights.flatten().nonzero().squeeze(-1)
    return weights.flatten()[chosen], [tensor[chosen] for tensor in tensors]


def cross_entropy(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats from the model's full logits: token ids [B, S] to a scalar."""
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), input_ids[:, 1:].flatten())
