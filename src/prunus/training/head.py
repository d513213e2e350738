"""The LM head and the loss as one: logits exist for a few tokens at a time, and gradients are taken on the way.

With hidden states [N, H] and a head [V, H], plain training holds logits [N, V], their log-softmax and gradient. Here a
chunk of tokens is multiplied with the head, its loss and the gradient by its logits are computed a few rows at a time
(so that they stay in the processor's cache) and written over the logits, and two more products give the gradients by
hidden states and head. Those two are all that is kept. Nothing is computed twice: backward only scales them.

The idea is Liger Kernel's (Hsu et al. 2024, arXiv 2410.10989), with the blocks of rows added.

N tokens, H hidden, V vocabulary, C tokens of a chunk, R rows of a block
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from prunus.models.head import Head

CHUNK = {"cpu": 256, "cuda": 2048}
"""Tokens whose logits exist at a time."""
_BLOCK = 2**18  # values of a block of rows: 1 MB, of which two or three fit into a core's L2


class TokenLoss(Protocol):
    """A loss of each token, for the head to call."""

    def begin(self, tokens: slice) -> None:
        """Make ready for a chunk, of tokens C."""

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """The weighted loss of each token [R] of logits [R, V], over which its gradient by them is written."""


def head_loss(hidden: torch.Tensor, head: Head, loss: TokenLoss) -> torch.Tensor:
    """The sum of a loss over tokens, with its gradients by hidden states and head.

    Args:
        hidden: [N, H].
        head: The head.
        loss: What is computed of each token's logits.

    Returns:
        A scalar in float32.
    """
    total: torch.Tensor = _HeadLoss.apply(hidden, head.weight, head.bias, head, loss)  # type: ignore[no-untyped-call]
    return total


def products(hidden: torch.Tensor, head: Head, out: torch.Tensor) -> torch.Tensor:
    """Logits of a chunk in float32: [C, H] to [C, V], in `out` where the types allow it."""
    if hidden.dtype == out.dtype:
        torch.mm(hidden, head.weight.T, out=out)
    elif hidden.is_cuda:  # bfloat16 factors, but no rounding of the sums
        torch.mm(hidden, head.weight.T, out_dtype=out.dtype, out=out)
    else:
        out.copy_(hidden @ head.weight.T)
    return head.finish(out)


def buffer(hidden: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Room for the logits of a chunk, [C, V] in float32, or in float64 where hidden states are."""
    chunk = max(1, min(CHUNK.get(hidden.device.type, CHUNK["cuda"]), len(hidden)))
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return torch.empty(chunk, vocabulary, dtype=dtype, device=hidden.device)


def blocks(tokens: slice, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """The rows of a chunk in blocks that fit a core's cache; on an accelerator all at once."""
    size = max(1, _BLOCK // vocabulary) if device.type == "cpu" else tokens.stop - tokens.start
    for start in range(tokens.start, tokens.stop, size):
        yield slice(start, min(start + size, tokens.stop))


def compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The type that a product with `tensor` is taken in: autocast's where it is on."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class _HeadLoss(torch.autograd.Function):
    """See the top of the file."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, head: Head, loss: TokenLoss
    ) -> torch.Tensor:
        """Everything."""
        dtype = compute_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            used = Head(weight.to(dtype), bias, head.scale, head.cap)
            sums = Sums(hidden, weight, bias, ctx.needs_input_grad)
            logits = buffer(hidden.to(dtype), len(weight))
            total = torch.zeros((), dtype=logits.dtype, device=hidden.device)
            for start in range(0, len(hidden), len(logits)):
                tokens = slice(start, min(start + len(logits), len(hidden)))
                total += _chunk(hidden[tokens].to(dtype), used, loss, tokens, logits[: tokens.stop - start], sums)
        ctx.sums = sums
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Scale what was computed on the way."""
        sums, ctx.sums = ctx.sums, None  # the caller's gradient is all that was missing
        parts = (sums.hidden, sums.weight, sums.bias)
        return *(part.mul_(gradients[0]) if part is not None else None for part in parts), None, None


class Sums:
    """The gradients as they grow: [N, H], [V, H] and [V], each None where it is not wanted."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: Sequence[bool]
    ) -> None:
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=wide) if bias is not None and wanted[2] else None

    def add(self, tokens: slice, hidden: torch.Tensor, gradient: torch.Tensor, head: Head) -> None:
        """Take up a chunk: hidden [C, H] and the gradient by its products with the head [C, V]."""
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
    hidden: torch.Tensor, head: Head, loss: TokenLoss, tokens: slice, logits: torch.Tensor, sums: Sums
) -> torch.Tensor:
    """The loss of one chunk, whose gradients go into `sums`."""
    products(hidden, head, logits)
    loss.begin(tokens)
    losses = []
    for block in blocks(tokens, logits.shape[1], hidden.device):
        rows = logits[block.start - tokens.start : block.stop - tokens.start]
        before = rows.clone() if head.cap is not None else None
        losses.append(loss.rows(block, rows))
        head.chain(rows, before)
    sums.add(tokens, hidden, logits, head)
    return torch.cat(losses).sum()
