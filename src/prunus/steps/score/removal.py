"""What a model loses without some of its layers.

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
"""From the numbers of the layers left out to what is then measured; less is better."""


@contextmanager
def without(model: nn.Module, family: Family, layers: frozenset[int]) -> Iterator[None]:
    """Run `model` with some layers handing on what they are given for as long as the context is open."""
    changed = [model.get_submodule(family.layer_name(i)) for i in layers]
    for layer in changed:
        layer.forward = _hand_on
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward  # the class's own is found again


def _hand_on(hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return hidden_states


@torch.no_grad()
def lm_loss(model: PreTrainedModel, batches: list[torch.Tensor]) -> torch.Tensor:
    """Σ of the batches' mean next-token losses times their sequences, and the sequences: [2] in float64.

    Args:
        model: The model, with or without all of its layers.
        batches: Token ids, [B, S] each.
    """
    total = torch.zeros(2, dtype=torch.float64, device=model.device)
    for ids in batches:
        total += torch.stack([cross_entropy(model, ids).double() * len(ids), torch.tensor(float(len(ids))).double()])
    return total


@torch.no_grad()
def logit_errors(
    model: PreTrainedModel, family: Family, layers: frozenset[int], batches: list[torch.Tensor]
) -> torch.Tensor:
    """Σ (z - z₀)² and Σ z₀² of the logits without `layers` and with all: [2] in float64; see `squared_errors`."""
    total = torch.zeros(2, dtype=torch.float64, device=model.device)
    for ids in batches:
        reference = model(input_ids=ids, use_cache=False).logits
        with without(model, family, layers):
            total += squared_errors(model(input_ids=ids, use_cache=False).logits, reference)
    return total


def blocks(measure: Measure, layers: int, length: int) -> list[float]:
    """The measure without each contiguous block of `length` layers, from the first on: [L - length + 1]."""
    return [measure(frozenset(range(first, first + length))) for first in range(layers - length + 1)]


def one_by_one(measure: Measure, layers: int) -> list[int]:
    """The order in which layers can go: each time the one without which the measure is then least, [L - 1].

    The iterated ranking of Nemotron Elastic (arXiv 2511.16664), which sees that layers stand in for each other.
    """
    gone: list[int] = []
    while len(gone) < layers - 1:
        left = [i for i in range(layers) if i not in gone]
        gone.append(min(left, key=lambda i: measure(frozenset([*gone, i]))))
    return gone
