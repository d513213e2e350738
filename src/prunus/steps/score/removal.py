"""Measurements of a model with some of its layers skipped.

L layers, B batch, S sequence, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.models.families.family import Family
from prunus.steps.score.importance import squared_errors
from prunus.training.objectives import cross_entropy

Measure = Callable[[frozenset[int]], float]
"""From the indices of the skipped layers to the measured value; lower is better."""


@contextmanager
def skip_layers(model: nn.Module, family: Family, layers: frozenset[int]) -> Iterator[None]:
    """Within this context, some layers of `model` return their input unchanged."""
    skipped = [model.get_submodule(family.layer_name(i)) for i in layers]
    for layer in skipped:
        layer.forward = _identity
    try:
        yield
    finally:
        for layer in skipped:
            del layer.forward  # uncovers the method of the class


def _identity(hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return hidden_states


@torch.no_grad()
def lm_loss(model: PreTrainedModel, batches: list[torch.Tensor]) -> torch.Tensor:
    """Σ of each batch's mean next-token loss times its number of sequences, and Σ of sequences: [2] in float64.

    Args:
        model: The model, possibly with skipped layers.
        batches: Token ids, [B, S] each.
    """
    total = torch.zeros(2, dtype=torch.float64, device=model.device)
    for ids in batches:
        total[0] += cross_entropy(model, ids).double() * len(ids)
        total[1] += len(ids)
    return total


@torch.no_grad()
def logit_errors(
    model: PreTrainedModel, family: Family, layers: frozenset[int], batches: list[torch.Tensor]
) -> torch.Tensor:
    """`squared_errors` of the logits without `layers` (z) against those with all layers (z₀): [2] in float64."""
    total = torch.zeros(2, dtype=torch.float64, device=model.device)
    for ids in batches:
        reference = model(input_ids=ids, use_cache=False).logits
        with skip_layers(model, family, layers):
            total += squared_errors(model(input_ids=ids, use_cache=False).logits, reference)
    return total


def block_removals(measure: Measure, layers: int, length: int) -> list[float]:
    """The measure without each contiguous block of `length` layers, by the block's first layer: [L - length + 1]."""
    return [measure(frozenset(range(first, first + length))) for first in range(layers - length + 1)]


def greedy_removal(measure: Measure, layers: int) -> list[int]:
    """The order in which to remove layers: each time the layer whose removal gives the lowest measure, [L - 1].

    The iterated ranking of Nemotron Elastic (arXiv 2511.16664). It accounts for layers that can replace each other.
    """
    removed: list[int] = []
    while len(removed) < layers - 1:
        remaining = [i for i in range(layers) if i not in removed]
        removed.append(min(remaining, key=lambda i: measure(frozenset([*removed, i]))))
    return removed
