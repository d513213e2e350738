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
    x, size = _with_size(x, centred, epsilon)
    return x / size


def scaled_gradients(x: torch.Tensor, gradients: torch.Tensor, centred: bool) -> torch.Tensor:
    """The gradient by `normalised` from that by what a norm reads, its size held fixed: two of [..., C] to one."""
    return gradients.float() * _with_size(x, centred, 1e-30)[1]


def _with_size(x: torch.Tensor, centred: bool, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a norm reads, in float32, without its mean if that is taken away, and √(mean x² + ε), [..., 1]."""
    x = x.float()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    return x, (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
