"""Normalisation without gain."""

from __future__ import annotations

import torch


def normalised(x: torch.Tensor, centred: bool, epsilon: float = 1e-30) -> torch.Tensor:
    """A norm's output before its gain, x / √(mean x² + ε), in float32.

    Args:
        x: The norm's input, [..., C].
        centred: Whether the mean is subtracted first (LayerNorm).
        epsilon: The norm's ε; the default only avoids a division by 0.
    """
    x, size = _with_size(x, centred, epsilon)
    return x / size


def scaled_gradients(x: torch.Tensor, gradients: torch.Tensor, centred: bool) -> torch.Tensor:
    """Convert gradients of a norm's input [..., C] to gradients of its normalised value, with a constant √(mean x²)."""
    return gradients.float() * _with_size(x, centred, 1e-30)[1]


def _with_size(x: torch.Tensor, centred: bool, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The input in float32, centred if requested, and √(mean x² + ε), [..., 1]."""
    x = x.float()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    return x, (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
