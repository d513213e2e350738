"""A rotation whose first axes are those of every smaller size, so that one rotated checkpoint has all sizes inside.

    d, d' channels of the teacher and of a size; Q [d, d'] with orthonormal columns; G = diag of the final norm's gain

Principal axes nest by themselves: the first d' of them are the basis of a size with d' channels. What does not nest is
what `rotate` adds for two kinds of models.

With tied embeddings, the basis that diagonalises Qᵀ G Q depends on the size. Here it is diagonalised within each shell,
the axes that a size has beyond the next smaller one. The smallest size loses nothing by that; a larger one loses what
couples its shells, which a diagonal gain cannot express. Within a shell, axes are in the order of their energy.

With LayerNorm, the axes are mapped to vectors whose entries sum to 0. Here these are Helmert's: vector k has k equal
entries and then one that balances them. To a size's first d' entries, the axes beyond its own add one and the same
number, which the size's norm subtracts. This holds for norms without a bias; others would give these axes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from prunus.models.shape import Shape
from prunus.steps.prune.rotate import Rotation, diagonalise, lost_energy, principal_axes


def nested_rotations(
    covariance: np.ndarray,
    criterion: np.ndarray,
    teacher: Shape,
    sizes: Sequence[int],
    vector: Callable[[str, int | None], np.ndarray],
) -> list[Rotation]:
    """The rotation of each size: their bases are the first columns of the first one's.

    Args:
        covariance: Σ x̂ x̂ᵀ over the inputs of the norms, [d, d].
        criterion: The matrix whose principal axes are kept, [d, d].
        teacher: The teacher's shape.
        sizes: The hidden size of each size, in descending order.
        vector: See `Rotation`.
    """
    family, largest = teacher.family, sizes[0]
    centred = int(family.layer_norm)
    axes = principal_axes(criterion, largest - centred)
    lost = [lost_energy(covariance, axes[:, : size - centred]) for size in sizes]
    gain = None
    if family.layer_norm:
        axes = axes @ helmert(largest).T
    elif teacher.flags.get("tie_word_embeddings", False):
        (final,) = family.norms[1]
        axes, gain = _diagonalised(axes, vector(f"{final}.weight", None), sizes, criterion)
    whole = Rotation(axes, family, vector, lost[0], gain)
    return [
        replace(whole, basis=axes[:, :size], lost=share, final_gain=None if gain is None else gain[:size])
        for size, share in zip(sizes, lost, strict=True)
    ]


def _diagonalised(
    axes: np.ndarray, gain: np.ndarray, sizes: Sequence[int], criterion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Within each shell, the axes in which Qᵀ diag(gain) Q is diagonal, by energy; and all diagonals."""
    bases, diagonals = [], []
    for start, end in pairwise([0, *sorted(set(sizes))]):
        basis, diagonal = diagonalise(axes[:, start:end], gain)
        order = np.argsort(-np.sum(basis * (criterion @ basis), axis=0), kind="stable")
        bases.append(basis[:, order])
        diagonals.append(diagonal[order])
    return np.concatenate(bases, axis=1), np.concatenate(diagonals)


def helmert(size: int) -> np.ndarray:
    """Orthonormal columns that each sum to 0, [size, size - 1]: column k has entries in its first k + 2 rows only.

    Column k (from 0) has k + 1 entries of 1 / √((k + 1)(k + 2)), then one of -√((k + 1) / (k + 2)).
    """
    result = np.zeros((size, size - 1))
    for k in range(size - 1):
        result[: k + 1, k] = 1 / np.sqrt((k + 1) * (k + 2))
        result[k + 1, k] = -np.sqrt((k + 1) / (k + 2))
    return result
