"""Log-probabilities of given tokens, with gradients, and no logits [N, V] at any time.

A loss of whole answers needs each answer's log-probability before it knows what any token's gradient is to be
multiplied by. So the forward pass keeps of each token its log-sum-exp alone, a chunk of logits at a time; the backward
pass takes the same products again, writes c (1[v = label] - p_v) over them, and goes on as `head.py` does. That is four
products with the head where whole logits take three, and no log-softmax, gradient or copy of [N, V].

N tokens, H hidden, V vocabulary, C tokens of a chunk
"""

from __future__ import annotations

from typing import Any

import torch

from prunus.models.head import Head
from prunus.training.head import Sums, blocks, buffer, compute_dtype, products


def token_log_probs(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """Log-softmax of the logits, at the label, of each token, in float32.

    Args:
        hidden: The hidden state that predicts each, [N, H].
        head: The head.
        labels: The tokens, [N].

    Returns:
        [N], with gradients by hidden states and head.
    """
    found: torch.Tensor = _TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, labels
    )
    return found


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
        """Log-probabilities, and the log-sum-exp of each token for later."""
        ctx.dtype = compute_dtype(hidden)
        ctx.factors = (head.scale, head.cap)
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(ctx.dtype), bias, *ctx.factors)
            room = buffer(hidden.to(ctx.dtype), len(weight))
            sums = torch.empty(len(hidden), dtype=room.dtype, device=hidden.device)
            said = torch.empty_like(sums)
            for tokens in _chunks(len(hidden), len(room)):
                logits = products(hidden[tokens].to(ctx.dtype), used, room[: tokens.stop - tokens.start])
                said[tokens] = logits.gather(-1, labels[tokens, None]).squeeze(-1)
                for block in blocks(tokens, len(weight), hidden.device):
                    sums[block] = logits[block.start - tokens.start : block.stop - tokens.start].logsumexp(dim=-1)
        ctx.save_for_backward(hidden, weight, bias, labels, sums)
        return said - sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The products once more, with the gradient written over them."""
        hidden, weight, bias, labels, sums = ctx.saved_tensors
        (factor,) = gradients
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(ctx.dtype), bias, *ctx.factors)
            grown = Sums(hidden, weight, bias, ctx.needs_input_grad)
            room = buffer(hidden.to(ctx.dtype), len(weight))
            for tokens in _chunks(len(hidden), len(room)):
                known = hidden[tokens].to(ctx.dtype)
                logits = products(known, used, room[: tokens.stop - tokens.start])
                for block in blocks(tokens, len(weight), hidden.device):
                    rows = logits[block.start - tokens.start : block.stop - tokens.start]
                    before = rows.clone() if used.cap is not None else None
                    _gradient(rows, sums[block], labels[block], factor[block])
                    used.chain(rows, before)
                grown.add(tokens, known, logits, used)
        return grown.hidden, grown.weight, grown.bias, None, None


def _gradient(logits: torch.Tensor, sums: torch.Tensor, labels: torch.Tensor, factor: torch.Tensor) -> None:
    """Write c (1[v = label] - p_v) over logits [R, V]."""
    logits.sub_(sums[:, None]).exp_().mul_(-factor[:, None])
    logits.scatter_add_(-1, labels[:, None], factor[:, None].to(logits.dtype))


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
