"""Scores that are not finite: which statistic, in which layer, on which sequence."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.errors import NotFiniteError
from prunus.models.finite import first_module, not_finite


def faulty_batch(
    model: PreTrainedModel, sums: Mapping[str, torch.Tensor], ids: torch.Tensor, batch: int
) -> NotFiniteError:
    """The error for statistics that a batch made not finite: the statistic, the sequence, and where it begins.

    Args:
        model: The scored model; nothing may be watching it.
        sums: As `Statistics` has them, of which `first_fault` names one.
        ids: The batch, [B, S].
        batch: Its number in this process, from 1.
    """
    name = first_fault(sums) or ""
    at = f"batch {batch} of the calibration set"
    at += f" (of process {distributed.rank()})" if distributed.count() > 1 else ""
    row = next((row for row in range(len(ids)) if first_module(model, ids[row : row + 1])), None)
    if row is None:  # the pass is finite, and gradients or squares are not
        return not_finite(model, f"{_place(name, sums[name])}, in {at}")
    return not_finite(model, f"{_place(name, sums[name])}, in row {row} of {at}", ids[row : row + 1])


def check_written(model: PreTrainedModel, scores: Mapping[str, torch.Tensor]) -> None:
    """Refuse scores that are not finite before they are written.

    Raises:
        NotFiniteError: Names the score.
    """
    name = first_fault(scores)
    if name is not None:
        raise not_finite(model, _place(name, scores[name]))


def first_fault(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The first tensor that holds NaN or infinity."""
    whole = torch.stack([torch.isfinite(values).all().cpu() for values in tensors.values()]).tolist()
    return next((name for name, finite in zip(tensors, whole, strict=True) if not finite), None)


def _place(name: str, values: torch.Tensor) -> str:
    """A statistic with the layer at which it is first not finite, where it is kept by layer."""
    index = (~torch.isfinite(values)).nonzero()[0].tolist()
    axis = name.partition(".")[0]
    by_layer = {"neurons": -2, "heads": -2, "experts": -2, "energy": 0, "reader_norms": 0}
    if name == "neurons.squares":
        by_layer["neurons"] = 0
    if axis not in by_layer or values.dim() < 2:
        return f"the statistic `{name}`"
    return f"the statistic `{name}` of layer {index[by_layer[axis]]}"
