"""Muon: steps along the nearest orthogonal matrix to the momentum, in the arithmetic that is fast here."""

from __future__ import annotations

from collections.abc import Callable

import torch

_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


class Muon(torch.optim.Muon):
    """torch's Muon, which always multiplies in bfloat16, with the products in another type.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon. Steps are scaled to the root mean square of AdamW's (Liu et
    al. 2025, arXiv 2502.16982), and the state is that of torch's own.

    Args:
        params: Matrices.
        products: The type that the Newton-Schulz iteration multiplies in. A processor without bfloat16 takes a hundred
            times as long in it as in float32.
        lr: Learning rate.
        weight_decay: Taken off the weights each step, as a share of `lr`.
        momentum: Weight of the past in the mean of the gradients.
    """

    def __init__(
        self, params: list[torch.Tensor], products: torch.dtype, *, lr: float, weight_decay: float, momentum: float
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum)
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
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
    """Five Newton-Schulz iterations towards U Vᵀ of a matrix U S Vᵀ: all but its smallest singular values end near 1.

    Args:
        matrix: Of any shape (m, n), not zero.
        products: The type to multiply in.

    Returns:
        (m, n), of that type.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.to(products)
    if tall := matrix.shape[0] > matrix.shape[1]:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=_EPSILON)
    for _ in range(_STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if tall else wide
