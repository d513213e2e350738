"""Maps the teacher's activations to the student's coordinates.

d, d' channels of teacher and student; B [d, d'] projects the teacher's residual stream to the student's: Q of a
rotation, or the kept columns of the identity if the cut does not rotate
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from prunus.models.axes import parse_weight
from prunus.models.families.family import Place
from prunus.models.prefix import query_factor
from prunus.models.shape import Shape
from prunus.steps.prune.choose import Keep
from prunus.steps.prune.compensate import norm_factor
from prunus.steps.prune.cut import indices
from prunus.steps.prune.rank import Scores
from prunus.steps.prune.refit import Inner
from prunus.steps.prune.rotate import Rotation


@dataclass(frozen=True)
class Bridge:
    """Maps the teacher's activations to the student's coordinates.

    Attributes:
        basis: B, [d, d'], on the models' device.
        kept: The kept channels, [d'], in the student's order; None if the cut rotates.
        layers: The teacher's layers that the student has.
        rows: Maps a module name of the family's table and a layer of the teacher to the kept indices of the module's
            outputs, and the factors that the cut applied to them.
        scale: Maps the name of a norm and a layer of the teacher to the factor that the cut applied to the gain.
        stream: The factor of the student's stream; see `Shape.stream_factor`.
        inner: What the next smaller size of a nest has of the student's linear layers, by module.
    """

    basis: torch.Tensor
    kept: torch.Tensor | None
    layers: list[int]
    rows: Callable[[str, int | None], tuple[torch.Tensor, torch.Tensor]]
    scale: Callable[[str, int | None], float]
    stream: float = 1.0
    inner: Mapping[nn.Module, Inner] = field(default_factory=dict)

    @cached_property
    def is_identity(self) -> bool:
        """Whether the student has the teacher's channels, in their order."""
        return self.kept is not None and self.kept.tolist() == list(range(len(self.basis)))

    def project(self, stream: torch.Tensor) -> torch.Tensor:
        """The teacher's stream in the student's coordinates: [..., d] to [..., d']."""
        if self.is_identity:
            return stream
        projected = stream @ self.basis if self.kept is None else stream[..., self.kept]
        return projected if self.stream == 1.0 else projected * self.stream


def make_bridge(
    teacher: Shape, target: Shape, keep: Keep, rotation: Rotation | None, scores: Scores, device: torch.device
) -> Bridge:
    """Build the map for a cut.

    Args:
        teacher: The teacher's shape.
        target: The student's shape.
        keep: What the cut kept.
        rotation: The change of basis, if the cut rotated.
        scores: The teacher's scores, from which the cut computed factors for norms.
        device: The models' device.
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

    kept = torch.from_numpy(hidden).to(device) if rotation is None else None
    basis_there = torch.tensor(basis, dtype=torch.float32, device=device)
    return Bridge(basis_there, kept, keep.layers, rows, scale, target.stream_factor(teacher))
