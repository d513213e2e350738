"""Least squares from sums over tokens: pure functions.

n, m inputs and outputs of a linear layer; W [m, n] its weight; X [tokens, n] its inputs, Y [tokens, m] its targets
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunus.products import times_transpose


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

    def fit(self, weight: torch.Tensor, ridge: float) -> torch.Tensor:
        """argmin_W ‖X Wᵀ - Y‖² + λ ‖W - W₀‖², with λ = ridge · mean diag XᵀX: [m, n] to [m, n].

        The penalty is on the change from the present weights W₀, so weights that the data does not determine keep their
        values.
        """
        strength = ridge * self.inputs.diagonal().mean().clamp_min(1e-30)
        left = self.inputs + strength * torch.eye(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        right = self.outputs + strength * weight.double()
        return torch.linalg.solve(left, right.T).T.to(weight.dtype)
