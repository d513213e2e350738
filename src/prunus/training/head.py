"""The LM head and the loss fused: logits exist for a few tokens at a time, and the forward pass computes gradients.

With hidden states [N, H] and a head [V, H], plain training holds logits [N, V], their log-softmax and gradient. Here a
chunk of tokens is multiplied by the head. Its loss and the gradient with respect to its logits are computed for a few
rows at a time (which stay in the processor's cache), and the gradient overwrites the logits. Two more products give the
gradients of hidden states and head, and only those are kept. Nothing is computed twice: backward only scales them.

The idea is Liger Kernel's (Hsu et al. 2024, arXiv 2410.10989), with the blocks of rows added.

N tokens, H hidden, V vocabulary, C tokens of a chunk, R rows of a block
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from prunus.models.head import Head

CHUNK = {"cpu": 256, "cuda": 2048}
"""Tokens per chunk: those whose logits exist at the same time."""
_BLOCK = 2**18  # values per block of rows: 1 MB, of which two or three fit into a core's L2


class TokenLoss(Protocol):
    """A per-token loss, called by the head."""

    def begin(self, tokens: slice) -> None:
        """Prepare for a chunk of C tokens."""

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """The weighted loss of each token [R]; overwrites the logits [R, V] with its gradient."""


def head_loss(hidden: torch.Tensor, head: Head, loss: TokenLoss) -> torch.Tensor:
    """The sum of a loss over tokens, with gradients for hidden states and head.

    Args:
        hidden: [N, H].
        head: The head.
        loss: The loss as a function of each token's logits.

    Returns:
        A scalar in float32.
    """
    total: torch.Tensor = _HeadLoss.apply(hidden, head.weight, head.bias, head, loss)  # type: ignore[no-untyped-call]
    return total


def head_logits(hidden: torch.Tensor, head: Head, out: torch.Tensor) -> torch.Tensor:
    """Write the logits of a chunk into `out`, in float32: [C, H] to [C, V]."""
    if hidden.dtype == out.dtype:
        torch.mm(hidden, head.weight.T, out=out)
    elif hidden.is_cuda:  # bfloat16 factors, but sums in float32
        torch.mm(hidden, head.weight.T, out_dtype=out.dtype, out=out)
    else:
        out.copy_(hidden @ head.weight.T)
    return head.finish(out)


def buffer(hidden: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """An empty tensor for the logits of a chunk, [C, V] in float32; in float64 for hidden states in float64."""
    chunk = max(1, min(CHUNK.get(hidden.device.type, CHUNK["cuda"]), len(hidden)))
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return torch.empty(chunk, vocabulary, dtype=dtype, device=hidden.device)


def blocks(tokens: slice, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """The rows of a chunk in blocks that fit into a core's cache; on an accelerator, one block."""
    size = max(1, _BLOCK // vocabulary) if device.type == "cpu" else tokens.stop - tokens.start
    for start in range(tokens.start, tokens.stop, size):
        yield slice(start, min(start + size, tokens.stop))


def compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype of products with `tensor`: autocast's if it is enabled, else the tensor's."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class _HeadLoss(torch.autograd.Function):
    """See the top of the file."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, head: Head, loss: TokenLoss
    ) -> torch.Tensor:
        """The loss and all gradients."""
        dtype = compute_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(dtype), bias, head.scale, head.cap)
            sums = GradientSums(hidden, weight, bias, ctx.needs_input_grad)
            logits = buffer(hidden.to(dtype), len(weight))
            total = torch.zeros((), dtype=logits.dtype, device=hidden.device)
            for start in range(0, len(hidden), len(logits)):
                tokens = slice(start, min(start + len(logits), len(hidden)))
                total += _chunk(hidden[tokens].to(dtype), used, loss, tokens, logits[: tokens.stop - start], sums)
        ctx.sums = sums
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Scale the gradients that the forward pass computed."""
        sums, ctx.sums = ctx.sums, None  # they are scaled in place, and used once
        parts = (sums.hidden, sums.weight, sums.bias)
        return *(part.mul_(gradients[0]) if part is not None else None for part in parts), None, None


class GradientSums:
    """Accumulated gradients of hidden states [N, H], head [V, H] and bias [V]; None for those not needed."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, needed: Sequence[bool]
    ) -> None:
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
        self.bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None

    def add(self, tokens: slice, hidden: torch.Tensor, gradient: torch.Tensor, head: Head) -> None:
        """Add a chunk: its hidden states [C, H] and the gradient with respect to its logits [C, V]."""
        narrow = gradient.to(head.weight.dtype)
        if self.hidden is not None:
            self.hidden[tokens] = narrow @ head.weight
        if self.weight is not None:
            if narrow.dtype == self.weight.dtype:
                self.weight.addmm_(narrow.T, hidden)
            else:
                self.weight += narrow.T @ hidden
        if self.bias is not None:
            self.bias += gradient.sum(dim=0)


def _chunk(
    hidden: torch.Tensor, head: Head, loss: TokenLoss, tokens: slice, logits: torch.Tensor, sums: GradientSums
) -> torch.Tensor:
    """The loss of one chunk; adds its gradients to `sums`."""
    head_logits(hidden, head, logits)
    loss.begin(tokens)
    losses = []
    for block in blocks(tokens, logits.shape[1], hidden.device):
        rows = logits[block.start - tokens.start : block.stop - tokens.start]
        before = rows.clone() if head.cap is not None else None
        losses.append(loss.rows(block, rows))
        head.chain(rows, before)
    sums.add(tokens, hidden, logits, head)
    return torch.cat(losses).sum()
