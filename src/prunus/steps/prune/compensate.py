"""Factors that a cut applies to weights so that dropping dead units changes nothing.

A norm over n channels divides by their root mean square. Over the n' kept channels, which hold the share f of the
energy, the root mean square is √(f n / n') times as large. If the dropped channels are dead (f = 1), the norm's gain is
scaled by that factor and the cut is exact. Otherwise the gain is sliced unchanged, as in the papers: scaling it by f
was tried and is worse (docs/decisions/0001-norms-of-a-cut-stream.md). Attention scores are divided by √head_dim, and
Gemma multiplies embeddings by √hidden_size; both change with the config and are always compensated.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from prunus.models.families.family import Place
from prunus.models.prefix import scale
from prunus.models.shape import Shape
from prunus.steps.prune.rank import Scores

DEAD = 1e-6
"""Channels with less than this share of the energy are dead."""


def factor(place: Place, teacher: Shape, target: Shape, scores: Scores, kept: np.ndarray) -> float | np.ndarray:
    """The factor on a weight along its first dimension; 1.0 if it does not change.

    Args:
        place: The weight.
        teacher: The teacher's shape.
        target: The student's shape.
        scores: The teacher's scores; without energies, gains of norms do not change.
        kept: The kept indices of the first dimension.

    Returns:
        One factor, or one for each kept index.
    """
    module = place.key.removesuffix(".weight")
    layered, shared = teacher.family.norms
    result = 1.0
    if module in layered or module in shared:
        length = _length(place, teacher)
        if (groups := teacher.family.grouped_norms.get(module)) is not None:  # divided by the energy of each group
            length = length * target.sizes()[groups] // teacher.sizes()[groups]
        result = norm_factor(module, place.layer, scores, kept, length)
    return result * scale(place, teacher, target)


def norm_factor(module: str, layer: int | None, scores: Scores, kept: np.ndarray, length: int) -> float:
    """√(n / n') for a norm if the kept channels hold all of the energy (f = 1); otherwise 1."""
    energies = scores.get(f"energy.{module}")
    if energies is None or len(kept) == length:
        return 1.0
    energy = (energies if layer is None else energies[layer]).astype(np.float64)
    lost = 1.0 - float(energy[kept].sum() / energy.sum())
    return sqrt(length / len(kept)) if lost < DEAD else 1.0


def _length(place: Place, teacher: Shape) -> int:
    return place.weight.shape(teacher.sizes())[0]
