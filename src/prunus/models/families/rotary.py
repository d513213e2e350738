"""Defaults of a family's rotary positions, for values that its config.json omits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rotary:
    """Transformers' keys and defaults of rotary positions for a `model_type`.

    Attributes:
        theta: The base of the frequencies.
        theta_key: Its key in config.json outside `rope_parameters`.
        share: The fraction of a head's dimensions that is rotated.
        share_key: Its key in config.json outside `rope_parameters`.
        partial: Whether llama.cpp, too, supports rotating a part of a head.
        sliding_theta: Theta of sliding layers, in families with parameters per kind of layer; None if all layers share
            one set.
        trained: The context length before its extension; None for `max_position_embeddings`.
        renamed: The family's names of `rope_type`, and the usual ones.
    """

    theta: float = 1e4
    theta_key: str = "rope_theta"
    share: float = 1.0
    share_key: str = "partial_rotary_factor"
    partial: bool = False
    sliding_theta: float | None = None
    trained: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
