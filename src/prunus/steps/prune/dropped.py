"""Compensates for dropped layers without a refit: a linear map before them, or a factor after them."""

from __future__ import annotations

import torch

from prunus.steps.prune.activations import LayerRunner
from prunus.steps.prune.bridge import Bridge
from prunus.steps.prune.pair import Pair, linear_names, residual_multiplier
from prunus.steps.prune.refit import Gram


def fold_dropped_layers(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Approximate the dropped layers by one linear map, folded into the last linear layer before them.

    T = argmin ‖M T - (Y - (x - M))‖² for the output M of that linear layer, the stream x after it and the target
    stream Y; then W ← Tᵀ W (Shopkhoev et al. 2025, ReplaceMe, arXiv 2505.02819).
    """
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    width = bridge.basis.shape[1]
    gram = Gram.empty(width, width, bridge.basis.device)
    for rows in pair.student.rows():
        out, captured = pair.student.run(pair.j, rows, name)
        output = multiplier * captured[name][1]
        gram.add(output, bridge.project(pair.after[rows].to(out.device)) - (out - output))
    linear_map = gram.fit(torch.eye(width, device=bridge.basis.device), ridge)
    for parameter in module.parameters():
        as_rows = parameter.T if parameter.ndim == 2 and pair.student.family.conv1d else parameter
        as_rows.copy_(linear_map @ as_rows)


def divide_later_outputs(student: LayerRunner, first: int, growth: float) -> None:
    """Divide the outputs of all later layers by the factor by which the stream grew over the dropped layers.

    This restores the ratio of the stream to what later layers add to it. Prune&Comp (Chen et al. 2025, arXiv
    2507.18212) multiplies the weights before the dropped layers instead, which tied embeddings do not allow.
    """
    for j in range(first, student.model.config.num_hidden_layers):
        layer = student.layer(j)
        for name in linear_names(layer, student.family, "hidden", 1 if student.family.conv1d else 0):
            for parameter in layer.get_submodule(name).parameters():
                parameter.div_(growth)


def magnitude(stream: torch.Tensor) -> float:
    """The mean absolute value of a stream."""
    return float(stream.abs().mean(dtype=torch.float64))
