"""Errors for scores that are not finite: they name the statistic, the layer and the sequence."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.errors import NotFiniteError
from prunus.models.finite import first_module, not_finite


def batch_error(
    model: PreTrainedModel, sums: Mapping[str, torch.Tensor], ids: torch.Tensor, batch: int
) -> NotFiniteError:
    """The error for a micro-batch that made statistics not finite: the statistic, the sequence, the first module.

    Args:
        model: The scored model, without hooks.
        sums: The sums of `Statistics`, at least one of them not finite.
        ids: The micro-batch, [B, S].
        batch: Its number in this process, from 1.
    """
    name = first_not_finite(sums) or ""
    at = f"batch {batch} of the calibration set"
    at += f" (of process {distributed.rank()})" if distributed.count() > 1 else ""
    row = next((row for row in range(len(ids)) if first_module(model, ids[row : row + 1])), None)
    if row is None:  # the forward pass is finite, but gradients or squares are not
        return not_finite(model, f"{_describe(name, sums[name])}, in {at}")
    return not_finite(model, f"{_describe(name, sums[name])}, in row {row} of {at}", ids[row : row + 1])


def check_finite(model: PreTrainedModel, scores: Mapping[str, torch.Tensor]) -> None:
    """Check that all scores are finite, before they are written.

    Raises:
        NotFiniteError: Names the first score that is not.
    """
    name = first_not_finite(scores)
    if name is not None:
        raise not_finite(model, _describe(name, scores[name]))


def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that contains NaN or infinity; None if all are finite."""
    finite = torch.stack([torch.isfinite(values).all().cpu() for values in tensors.values()]).tolist()
    return next((name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite), None)


def _describe(name: str, values: torch.Tensor) -> str:
    """A statistic's name, and for a statistic by layer the first layer in which it is not finite."""
    index = (~torch.isfinite(values)).nonzero()[0].tolist()
    axis = name.partition(".")[0]
    by_layer = {"neurons": -2, "heads": -2, "experts": -2, "shared": -2, "dense": -2, "energy": 0, "reader_norms": 0}
    if name == "neurons.squares":
        by_layer["neurons"] = 0
    if axis not in by_layer or values.dim() < 2:
        return f"the statistic `{name}`"
    return f"the statistic `{name}` of layer {index[by_layer[axis]]}"
