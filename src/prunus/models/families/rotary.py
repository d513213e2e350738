"""Defaults of a family's rotary positions, for values that its config.json omits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def _nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Rotary:
    """Transformers' keys and defaults of rotary positions for a `model_type`.

    Attributes:
        theta: The base of the frequencies.
        theta_key: Its key in config.json outside `rope_parameters`.
        share: The fraction of a head's dimensions that is rotated.
        share_key: Its key in config.json outside `rope_parameters`.
        partial: Whether llama.cpp, too, supports rotating a part of a head.
        interleaved: Whether pair i of a head is its dimensions 2i and 2i + 1, instead of i and i + head_dim / 2.
        sliding_theta: Theta of sliding layers, in families with parameters per kind of layer; None if all layers share
            one set.
        sliding_key: Its key in config.json outside `rope_parameters`; empty for none.
        trained: The context length before its extension; None for `max_position_embeddings`.
        by_width: Whether transformers requires as many factors of longrope as hidden_size / heads has pairs, whatever
            head_dim is.
        alpha: Whether positions of type `dynamic` with an `alpha` are default ones with another theta,
            theta · alpha^(head_dim / (head_dim - 2)).
        renamed: The family's names of `rope_type`, and the usual ones.
        default: Maps config.json to the parameters of a model whose config.json has none.
    """

    theta: float = 1e4
    theta_key: str = "rope_theta"
    share: float = 1.0
    share_key: str = "partial_rotary_factor"
    partial: bool = False
    interleaved: bool = False
    sliding_theta: float | None = None
    sliding_key: str = "rope_local_base_freq"
    trained: int | None = None
    by_width: bool = False
    alpha: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    default: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
