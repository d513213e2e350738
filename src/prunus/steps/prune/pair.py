"""A kept layer in the teacher and in the student, and which of its modules a fit is for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from prunus.models.axes import parse_weight
from prunus.models.families.family import Family
from prunus.steps.prune.activations import LayerRunner


@dataclass(frozen=True)
class Pair:
    """A kept layer, in the teacher and in the student.

    Attributes:
        teacher: The teacher, with its stream before the layer.
        student: The student, with its stream before the layer.
        i: The layer's index in the teacher.
        j: The layer's index in the student.
        after: [N, S, d], the teacher's stream before the next kept layer.
        dropped: How many layers between this and the next kept layer were dropped.
    """

    teacher: LayerRunner
    student: LayerRunner
    i: int
    j: int
    after: torch.Tensor
    dropped: int


def norms_and_writers(layer: nn.Module, family: Family) -> tuple[list[str], list[str]]:
    """The norms of a layer that linear layers read, and the linear layers that write the stream, in forward order."""
    norms = [norm for norm in family.norms[0] if norm in family.feeds]
    gated = family.experts.gated if family.experts is not None else ""
    writers = linear_names(layer, family, "hidden", 1 if family.conv1d else 0)
    return norms, [name for name in writers if name != gated]


def linear_names(layer: nn.Module, family: Family, axis: str, dim: int) -> list[str]:
    """Names of a layer's linear modules whose weight has `axis` as dimension `dim`, in the table's order."""
    names = [
        key.removesuffix(".weight") for key, line in family.layered.items() if parse_weight(line).runs_over(axis, dim)
    ]
    return [name for name in names if is_linear(layer, name)]


def is_linear(layer: nn.Module, name: str) -> bool:
    """Whether a name in the table is a linear module in transformers: routers and stacked experts are not."""
    try:
        module = layer.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def residual_multiplier(runner: LayerRunner) -> float:
    """The factor on everything that layers write to the residual stream."""
    key = runner.family.residual_multiplier
    return float(getattr(runner.model.config, key)) if key else 1.0
