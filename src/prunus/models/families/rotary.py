"""What a family's rotary positions are where its config.json does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rotary:
    """Keys and defaults of rotary positions, as transformers has them for a `model_type`.

    Attributes:
        theta: The base of the speeds.
        theta_key: What config.json calls it outside of `rope_parameters`.
        share: The share of a head's dimensions that is turned.
        share_key: What config.json calls it there.
        partial: Whether llama.cpp too turns heads in part where it is told to.
        sliding_theta: Theta of sliding layers, where kinds of layers have parameters of their own; None where all
            layers share one set.
        trained: The context before it was stretched; None for `max_position_embeddings`.
        renamed: The family's own names of `rope_type`, and the usual ones.
    """

    theta: float = 1e4
    theta_key: str = "rope_theta"
    share: float = 1.0
    share_key: str = "partial_rotary_factor"
    partial: bool = False
    sliding_theta: float | None = None
    trained: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
