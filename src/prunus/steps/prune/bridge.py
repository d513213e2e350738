"""How what a teacher says is said in its student's terms.

d, d' channels of teacher and student; B [d, d'] takes the teacher's residual stream to the student's: the rotation's
Q, or the columns of the identity that a plain cut keeps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from prunus.models.axes import parse_weight
from prunus.models.families.family import Place
from prunus.models.shape import Shape
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.compensate import norm_factor, query_factor
from prunus.steps.prune.cut import indices
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.rotate import Rotation


@dataclass(frozen=True)
class Bridge:
    """How what the teacher says is said in the student's terms.

    Attributes:
        basis: B, [d, d'], on the models' device.
        layers: The teacher's layers that stay.
        rows: From a weight of the table and the teacher's layer to the positions of its outputs that stay, and what the
            cut multiplied them by.
        scale: From a norm of the table and the teacher's layer to what the cut multiplied its gain by.
    """

    basis: torch.Tensor
    layers: list[int]
    rows: Callable[[str, int | None], tuple[torch.Tensor, torch.Tensor]]
    scale: Callable[[str, int | None], float]


def make_bridge(
    teacher: Shape, target: Shape, keep: Keep, rotation: Rotation | None, scores: Scores, device: torch.device
) -> Bridge:
    """The bridge that a cut leaves.

    Args:
        teacher: The shape that was cut.
        target: The shape that is left.
        keep: What stayed.
        rotation: The change of basis, if there was one.
        scores: The teacher's, by which the cut chose factors for norms.
        device: Of the models.
    """
    hidden = keep.shared["hidden"]
    basis = np.eye(teacher.hidden_size)[:, hidden] if rotation is None else rotation.basis

    def rows(name: str, layer: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        key = f"{name}.weight"
        line = teacher.family.layered[key] if layer is not None else teacher.family.shared[key]
        place = Place(key, parse_weight(line), layer)
        kept = indices(place, teacher.sizes(), keep)[1 if teacher.family.conv1d else 0]
        factors = np.broadcast_to(query_factor(place, teacher, target), kept.shape)
        return torch.from_numpy(kept).to(device), torch.tensor(factors, dtype=torch.float32, device=device)

    def scale(norm: str, layer: int | None) -> float:
        return rotation.scale if rotation else norm_factor(norm, layer, scores, hidden, teacher.hidden_size)

    return Bridge(torch.tensor(basis, dtype=torch.float32, device=device), keep.layers, rows, scale)
