"""Muon: updates along the orthogonal matrix nearest to the momentum, in the dtype that is fast on this device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from prunus.products import times_transpose

_COEFFICIENTS = (
    (8.2218, -23.3469, 16.6338),
    (3.9774, -2.8495, 0.5179),
    (3.4983, -2.5278, 0.4849),
    (2.5546, -1.8419, 0.4171),
)
"""(a, b, c) of each iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X.

Of all such sequences, this one takes singular values from 0.003 to 1 nearest to 1: within 0.24. Each quintic is the
best on the interval that the one before leaves, widened by 1.02 for rounding in bfloat16 (Amsel et al. 2025, arXiv
2505.16932).
"""
_EPSILON = 1e-7


class Muon(torch.optim.Muon):
    """torch's Muon with fewer products, and a choice of their dtype.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon. Updates are scaled to the root mean square of AdamW's (Liu et
    al. 2025, arXiv 2502.16982). The state is compatible with torch's.

    Args:
        params: Matrices.
        products: The dtype of the products in the Newton-Schulz iteration. A processor without bfloat16 takes a
            hundred times as long in bfloat16 as in float32.
        lr: Learning rate.
        weight_decay: Decoupled weight decay; each step multiplies the weights by 1 - `lr` x `weight_decay`.
        momentum: Decay of the running mean of gradients.
    """

    def __init__(
        self, params: list[torch.Tensor], products: torch.dtype, *, lr: float, weight_decay: float, momentum: float
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum)
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                direction = orthogonal(matrix.grad.lerp(average, momentum), self.products)
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(direction, alpha=-rate * 0.2 * max(matrix.shape) ** 0.5)
        return loss


def orthogonal(matrix: torch.Tensor, products: torch.dtype) -> torch.Tensor:
    """From a matrix U S Vᵀ towards U Vᵀ: all but the smallest singular values end near 1.

    Args:
        matrix: Any matrix (m, n) except zero.
        products: The dtype of the products.

    Returns:
        (m, n), in that dtype.
    """
    wide = matrix.to(products)
    if tall := matrix.shape[0] > matrix.shape[1]:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=_EPSILON)
    for number, (a, b, c) in enumerate(_COEFFICIENTS):
        gram = times_transpose(wide)
        square = gram @ gram
        if number == 0:
            # (Σ s⁸)^⅛ bounds the largest singular value more closely than the Frobenius norm, and costs no product more
            size = square.norm().clamp(min=_EPSILON**2).sqrt().sqrt()
            wide, gram, square = wide / size, gram / size**2, square / size**4
        wide = torch.addmm(wide, square.mul_(c).add_(gram, alpha=b), wide, beta=a)
    return wide.T if tall else wide
