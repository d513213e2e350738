"""Least squares from sums over tokens: pure functions.

n, m inputs and outputs of a linear; W [m, n]; X [tokens, n] its inputs, Y [tokens, m] what it should give
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Gram:
    """The sums that a least-squares fit needs of any number of tokens.

    Attributes:
        inputs: Σ x xᵀ, [n, n] in float64.
        outputs: Σ y xᵀ, [m, n] in float64.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def empty(cls, n: int, m: int, device: torch.device) -> Gram:
        """Nothing summed yet."""
        return cls(*(torch.zeros(size, n, dtype=torch.float64, device=device) for size in (n, m)))

    def add(self, x: torch.Tensor, y: torch.Tensor, size: torch.Tensor | None = None) -> None:
        """Add tokens: [..., n] and [..., m]; their errors count relative to `size`, [...]."""
        x, y = x.float().flatten(0, -2), y.float().flatten(0, -2)
        if size is not None:
            size = size.float().flatten()[:, None]
            x, y = x / size, y / size
        self.inputs += (x.T @ x).double()
        self.outputs += (y.T @ x).double()

    def fit(self, weight: torch.Tensor, ridge: float) -> torch.Tensor:
        """argmin_W ‖X Wᵀ - Y‖² + λ ‖W - W₀‖², with λ = ridge · mean diag XᵀX: [m, n] to [m, n].

        Held to the weights that are there, so that inputs the data says nothing of keep theirs.
        """
        strength = ridge * self.inputs.diagonal().mean().clamp_min(1e-30)
        left = self.inputs + strength * torch.eye(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        right = self.outputs + strength * weight.double()
        return torch.linalg.solve(left, right.T).T.to(weight.dtype)


def scale_products(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Σ ⟨wanted, found⟩ and Σ ‖found‖², whose ratio brings `found` nearest: [..., d] twice to [2]."""
    wanted, found = wanted.double(), found.double()
    return torch.stack([(wanted * found).sum(), found.square().sum()])
