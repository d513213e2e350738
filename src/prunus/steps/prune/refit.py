"""Least squares from sums over tokens: pure functions.

n, m inputs and outputs of a linear layer; W [m, n] its weight; X [tokens, n] its inputs, Y [tokens, m] its targets
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunus.products import times_transpose


@dataclass(frozen=True)
class Inner:
    """The block of a weight that the next smaller size of a nest has too.

    Attributes:
        rows: Its outputs, indices [m'].
        columns: Its inputs, indices [n'].
        weight: What a change of the smaller size's outputs counts, relative to this size's errors.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    weight: float


@dataclass
class Gram:
    """The sums over tokens that a least-squares fit needs.

    Attributes:
        inputs: Σ x xᵀ, [n, n] in float64.
        outputs: Σ y xᵀ, [m, n] in float64.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def empty(cls, n: int, m: int, device: torch.device) -> Gram:
        """Sums of 0, for `n` inputs and `m` outputs."""
        return cls(*(torch.zeros(size, n, dtype=torch.float64, device=device) for size in (n, m)))

    def add(self, x: torch.Tensor, y: torch.Tensor, size: torch.Tensor | None = None) -> None:
        """Add tokens.

        Args:
            x: Inputs, [..., n].
            y: Targets, [..., m].
            size: What each token's error is divided by, [...]; None for 1.
        """
        x, y = x.float().flatten(0, -2), y.float().flatten(0, -2)
        if size is not None:
            size = size.float().flatten()[:, None]
            x, y = x / size, y / size
        self.inputs += times_transpose(x.T).double()
        self.outputs += (y.T @ x).double()

    def fit(self, weight: torch.Tensor, ridge: float, inner: Inner | None = None) -> torch.Tensor:
        """argmin_W ‖X Wᵀ - Y‖² + λ ‖W - W₀‖² + α ‖X' (W - W₀)'ᵀ‖², with λ = ridge · mean diag XᵀX: [m, n] to [m, n].

        The penalty is on the change from the present weights W₀, so weights that the data does not determine keep their
        values. ' is the block of `inner` with its inputs, α its weight: what the smaller size, whose fit W₀ is there,
        loses by the change, if its inputs are those of this size. Without `inner`, α is 0.
        """
        strength = ridge * self.inputs.diagonal().mean().clamp_min(1e-30)
        left = self.inputs + strength * torch.eye(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        right = self.outputs + strength * weight.double()
        fitted = torch.linalg.solve(left, right.T).T
        if inner is not None:
            held = torch.zeros_like(self.inputs)
            block = torch.meshgrid(inner.columns, inner.columns, indexing="ij")
            held[block] = inner.weight * self.inputs[block]
            wanted = right[inner.rows] + weight[inner.rows].double() @ held
            fitted[inner.rows] = torch.linalg.solve(left + held, wanted.T).T
        return fitted.to(weight.dtype)
