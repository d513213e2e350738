"""What a norm does, apart from its gain."""

from __future__ import annotations

import torch


def normalised(x: torch.Tensor, centred: bool, epsilon: float = 1e-30) -> torch.Tensor:
    """What a norm makes of its input before its gain, x / √(mean x² + ε), in float32, any shape.

    Args:
        x: What the norm reads, [..., C].
        centred: Whether it takes the mean away first (LayerNorm).
        epsilon: The norm's own, or enough that nothing is divided by 0.
    """
    x = x.float()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    return x * (x.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt()
