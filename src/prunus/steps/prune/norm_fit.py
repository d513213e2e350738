"""Heals a norm's gain and the linear layers that read the norm, from sums of normalised activations.

    x̂ [d], x̂' [d'] the streams of teacher and student, normalised, without gain and bias; g, b gain and bias of a norm

The inputs of both models' linear layers follow from x̂ and x̂' alone. So Σ (x̂', 1) (x̂', 1)ᵀ and Σ (x̂, 1) (x̂', 1)ᵀ are
enough for the gain and for every reader, and no output of a reader has to be computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from prunus.models.families.family import Family
from prunus.models.norms import normalised
from prunus.steps.prune.refit import Gram


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads a norm, in teacher and student.

    Attributes:
        teacher: The module in the teacher.
        student: The module in the student.
        rows: The teacher's outputs that the student has, [m].
        factors: The factors that the cut applied to them, [m].
    """

    teacher: Any
    student: Any
    rows: torch.Tensor
    factors: torch.Tensor


def norm_sums(
    norms: tuple[Any, Any], streams: Iterable[tuple[torch.Tensor, torch.Tensor]], basis: torch.Tensor, family: Family
) -> Gram:
    """The sums of (x̂', 1), the inputs, and (x̂, 1), the outputs, over tokens.

    Args:
        norms: The norm in teacher and student.
        streams: Micro-batches of what the two norms read, [..., d] and [..., d'].
        basis: B, [d, d'].
        family: The models' family.
    """
    d, d_s = basis.shape
    sums = Gram.empty(d_s + 1, d + 1, basis.device)
    for batch in streams:
        target, values = (
            F.pad(normalised(x, family.layer_norm, _epsilon(norm)), (0, 1), value=1.0)
            for norm, x in zip(norms, batch, strict=True)
        )
        sums.add(values, target)
    return sums


def best_scale(sums: Gram, norm: Any, basis: torch.Tensor, family: Family) -> float:
    """Σ ⟨g ∘ Bᵀx̂, g ∘ x̂'⟩ / Σ ‖g ∘ x̂'‖²: the least-squares factor on the student's gain g."""
    squares = _gain(norm, family).square()
    products = (basis.double() * sums.outputs[:-1, :-1]).sum(0)
    return float((squares * products).sum() / (squares * sums.inputs.diagonal()[:-1]).sum())


def reader_sums(sums: Gram, norms: tuple[Any, Any], readers: list[Reader], family: Family) -> Gram:
    """The sums for one fit of all readers to the kept outputs of the teacher's, less the student's biases."""
    of_teacher, of_student = norms
    inputs = _through(of_student, sums.inputs, family)  # Σ n' (x̂', 1)ᵀ
    products = _through(of_student, _through(of_teacher, sums.outputs, family).T, family).T  # Σ n n'ᵀ
    targets = [_target_sums(reader, products, inputs[:, -1]) for reader in readers]
    return Gram(_through(of_student, inputs.T, family), torch.cat(targets))


def scale_gain(norm: Any, factor: float, family: Family) -> None:
    """Multiply a norm's gain by a factor, in place."""
    norm.weight.copy_((norm.weight + family.gain_offset) * factor - family.gain_offset)


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a linear layer as a view [m, n], whichever way it is stored."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _target_sums(reader: Reader, products: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Σ y n'ᵀ of the targets y = W n + b of one reader, from Σ n n'ᵀ [d, d'] and Σ n' [d']: [m, d']."""
    factors = reader.factors.double()
    weight = weight_of(reader.teacher)[reader.rows].double() * factors[:, None]
    result = weight @ products
    if reader.teacher.bias is None:
        return result
    bias = reader.teacher.bias[reader.rows].double() * factors - reader.student.bias.double()
    return result + torch.outer(bias, total)


def _through(norm: Any, sums: torch.Tensor, family: Family) -> torch.Tensor:
    """From Σ (x̂, 1) cᵀ to Σ (g ∘ x̂ + b) cᵀ: [d + 1, c] to [d, c]."""
    result = _gain(norm, family)[:, None] * sums[:-1]
    bias = getattr(norm, "bias", None)
    return result if bias is None else result + torch.outer(bias.double(), sums[-1])


def _gain(norm: Any, family: Family) -> torch.Tensor:
    gain: torch.Tensor = norm.weight.double() + family.gain_offset
    return gain


def _epsilon(norm: Any) -> float:
    return float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
