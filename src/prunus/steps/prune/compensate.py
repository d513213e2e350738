"""What a cut must change besides leaving things out, so that leaving out what is dead changes nothing.

A norm over n members divides by the root of their mean square. Over the n' that stay, which hold the share f of the
energy, that root is √(f n / n') times as large. Where what goes is dead (f = 1) the norm's gain makes up for it, and
the cut is exact. Where it is not, the gain is sliced as it stands, as the papers do: making up for f then was tried and
is worse (docs/decisions/0001-norms-of-a-cut-stream.md). Attention scores are divided by √head_dim, and Gemma multiplies
embeddings by √hidden_size: both follow the config, and are always made up for.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from prunus.models.axes import segment_size
from prunus.models.families.family import Place
from prunus.models.shape import Shape
from prunus.steps.prune.rank import Scores

DEAD = 1e-6
"""The share of the energy that counts as none."""


def factor(place: Place, teacher: Shape, target: Shape, scores: Scores, kept: np.ndarray) -> float | np.ndarray:
    """What to multiply a weight's first dimension by, 1.0 where nothing is to change.

    Args:
        place: The weight.
        teacher: The shape that is cut.
        target: The shape that is left.
        scores: The teacher's; without energies a norm's members count as equal.
        kept: The positions of the first dimension that stay.

    Returns:
        One factor, or one for each position that stays.
    """
    module = place.key.removesuffix(".weight")
    layered, shared = teacher.family.norms
    result = 1.0
    if module in layered or module in shared:
        result = norm_factor(module, place.layer, scores, kept, _length(place, teacher))
    if module in teacher.family.writers and teacher.family.scaled_embedding:
        result *= sqrt(target.hidden_size / teacher.hidden_size)
    return result * query_factor(place, teacher, target)


def norm_factor(module: str, layer: int | None, scores: Scores, kept: np.ndarray, length: int) -> float:
    """√(f n / n') of one norm where the kept members hold all of the energy, f = 1; otherwise 1."""
    energies = scores.get(f"energy.{module}")
    if energies is None or len(kept) == length:
        return 1.0
    energy = (energies if layer is None else energies[layer]).astype(np.float64)
    lost = 1.0 - float(energy[kept].sum() / energy.sum())
    return sqrt(length / len(kept)) if lost < DEAD else 1.0


def query_factor(place: Place, teacher: Shape, target: Shape) -> float | np.ndarray:
    """√(d' / d) where the queries last pass, so that scores divided by √d' are those that were divided by √d."""
    if teacher.head_dim == target.head_dim or teacher.family.fixed_scale:
        return 1.0
    if not teacher.family.ends_queries(place):
        return 1.0
    ratio = sqrt(target.head_dim / teacher.head_dim)
    if teacher.family.query_norm:
        return ratio
    segments = place.weight.dims[0]
    sizes = target.sizes()
    return np.concatenate([np.full(segment_size(s, sizes), ratio if i == 0 else 1.0) for i, s in enumerate(segments)])


def _length(place: Place, teacher: Shape) -> int:
    return place.weight.shape(teacher.sizes())[0]
