"""Log-probabilities of given tokens, with gradients, without ever holding logits [N, V].

A loss of whole answers needs each answer's log-probability before the factor of any token's gradient is known. So the
forward pass computes a chunk of logits at a time and keeps only the log-sum-exp of each token. The backward pass
computes the same logits again, overwrites them with c (1[v = label] - p_v), and continues as `head.py` does. That takes
four products with the head, where full logits take three, but no log-softmax, gradient or copy of [N, V].

N tokens, H hidden, V vocabulary, C tokens of a chunk
"""

from __future__ import annotations

from typing import Any

import torch

from prunus.models.head import Head
from prunus.training.head import GradientSums, blocks, buffer, compute_dtype, head_logits


def token_log_probs(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """The log-softmax of the logits at each token's label, in float32.

    Args:
        hidden: The hidden states that predict the tokens, [N, H].
        head: The head.
        labels: The tokens, [N].

    Returns:
        [N], with gradients for hidden states and head.
    """
    result: torch.Tensor = _TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, labels
    )
    return result


class _TokenLogProbs(torch.autograd.Function):
    """See the top of the file."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        head: Head,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """The log-probabilities; keeps each token's log-sum-exp for the backward pass."""
        ctx.dtype = compute_dtype(hidden)
        ctx.factors = (head.scale, head.cap)
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(ctx.dtype), bias, *ctx.factors)
            room = buffer(hidden.to(ctx.dtype), len(weight))
            sums = torch.empty(len(hidden), dtype=room.dtype, device=hidden.device)
            at_labels = torch.empty_like(sums)
            for tokens in _chunks(len(hidden), len(room)):
                logits = head_logits(hidden[tokens].to(ctx.dtype), used, room[: tokens.stop - tokens.start])
                at_labels[tokens] = logits.gather(-1, labels[tokens, None]).squeeze(-1)
                for block in blocks(tokens, len(weight), hidden.device):
                    sums[block] = logits[block.start - tokens.start : block.stop - tokens.start].logsumexp(dim=-1)
        ctx.save_for_backward(hidden, weight, bias, labels, sums)
        return at_labels - sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Compute the logits again, and overwrite them with the gradient."""
        hidden, weight, bias, labels, sums = ctx.saved_tensors
        (factor,) = gradients
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(ctx.dtype), bias, *ctx.factors)
            gradient_sums = GradientSums(hidden, weight, bias, ctx.needs_input_grad)
            room = buffer(hidden.to(ctx.dtype), len(weight))
            for tokens in _chunks(len(hidden), len(room)):
                known = hidden[tokens].to(ctx.dtype)
                logits = head_logits(known, used, room[: tokens.stop - tokens.start])
                for block in blocks(tokens, len(weight), hidden.device):
                    rows = logits[block.start - tokens.start : block.stop - tokens.start]
                    before = rows.clone() if used.cap is not None else None
                    _gradient(rows, sums[block], labels[block], factor[block])
                    used.chain(rows, before)
                gradient_sums.add(tokens, known, logits, used)
        return gradient_sums.hidden, gradient_sums.weight, gradient_sums.bias, None, None


def _gradient(logits: torch.Tensor, sums: torch.Tensor, labels: torch.Tensor, factor: torch.Tensor) -> None:
    """Overwrite logits [R, V] with c (1[v = label] - p_v)."""
    logits.sub_(sums[:, None]).exp_().mul_(-factor[:, None])
    logits.scatter_add_(-1, labels[:, None], factor[:, None].to(logits.dtype))


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
