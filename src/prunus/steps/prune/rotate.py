"""The residual stream turned to other axes, so that what is cut away is where it holds least.

    d, d' channels of the teacher and of the student; Q [d, d'] with orthonormal columns; G = diag of a norm's gain

RMSNorm is invariant to an orthogonal change of basis once its gain is folded into the linears that read it, so one Q
serves the whole network (SliceGPT, Ashkboos et al. 2024, arXiv 2401.15024, has one for each block and needs
adapters between them): embeddings and writers end in Q, readers become W G Q, and a gain is one number. Two
things are ours.

A tied embedding cannot take the final gain in. But which basis of the kept subspace Q is, is free: in the one that
diagonalises Qᵀ G Q the final norm keeps that diagonal as its gain, and E Q is read and written as it stands. Nothing is
lost but what the cut loses.

LayerNorm takes the mean away, so it sees d - 1 dimensions, all but (1, ..., 1). The student's has d' - 1: its first
d' - 1 principal axes are laid where their sum is 0. The direction that is left, which the norm never writes, carries
what the norm's bias says: exactly, whether or not the linears that read it have biases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from prunus.models.families.family import Family, Place
from prunus.models.shape import Shape
from prunus.steps.prune.compensate import DEAD


@dataclass(frozen=True)
class Rotation:
    """One change of basis for a whole network, cut to the axes that stay.

    Attributes:
        basis: Q, [d, d'].
        family: The table that says which norm each weight reads.
        vector: Gives the teacher's vector of a name in the table (a norm's gain or bias) and a layer, in float64.
        lost: The share of the normalised stream's energy outside the axes that stay.
        final_gain: The final norm's gain in this basis where embeddings are tied, [d']; None where they are not.
    """

    basis: np.ndarray
    family: Family
    vector: Callable[[str, int | None], np.ndarray]
    lost: float
    final_gain: np.ndarray | None

    @property
    def scale(self) -> float:
        """What every gain is multiplied by: √(d / d') where nothing is lost, else 1 (see `compensate`)."""
        return sqrt(self.basis.shape[0] / self.basis.shape[1]) if self.lost < DEAD else 1.0

    def gain(self, norm: str, layer: int | None) -> np.ndarray:
        """A norm's gain in the student: the size of the teacher's, the same for all channels, [d']."""
        if layer is None and self.final_gain is not None:
            return self.final_gain * self.scale
        return np.full(self.basis.shape[1], self._size(f"{norm}.weight", layer) * self.scale)

    def bias(self, norm: str, layer: int | None) -> np.ndarray:
        """A LayerNorm's bias in the student: the size of the teacher's, along (1, ..., 1), [d']."""
        return np.full(self.basis.shape[1], self._size(f"{norm}.bias", layer))

    def map(self, place: Place) -> np.ndarray:
        """What to multiply a weight's hidden dimension by, from the right: [d, d'].

        Q for what is written to the stream; G Q / |G| for what is read from a norm, with b 1ᵀ / (d' |b|) for the norm's
        bias b, where |.| is the root mean square that `gain` and `bias` give.
        """
        norm = self.family.norm_before(place.key)
        if norm is None:
            return self.basis
        layer = place.layer if norm not in self.family.norms[1] else None
        gain = self.vector(f"{norm}.weight", layer)
        result = self.basis * (gain / self._size(f"{norm}.weight", layer))[:, None]
        size = self._size(f"{norm}.bias", layer) if self.family.layer_norm else 0.0
        if size:
            result = result + self.vector(f"{norm}.bias", layer)[:, None] / (size * result.shape[1])
        return result

    def _size(self, key: str, layer: int | None) -> float:
        return float(np.sqrt(np.mean(self.vector(key, layer) ** 2)))


def make_rotation(
    covariance: np.ndarray,
    wanted: np.ndarray,
    teacher: Shape,
    size: int,
    vector: Callable[[str, int | None], np.ndarray],
) -> Rotation:
    """The rotation that keeps the most of what is wanted of the normalised residual stream.

    Args:
        covariance: Σ x̂ x̂ᵀ over what the norms read, [d, d].
        wanted: Whose principal axes stay, [d, d]: the covariance, or what `balanced` makes of it.
        teacher: The shape that is cut.
        size: d'.
        vector: See `Rotation`.
    """
    family = teacher.family
    axes = principal_axes(wanted, size - 1 if family.layer_norm else size)
    lost = lost_energy(covariance, axes)
    gain = None
    if family.layer_norm:
        axes = axes @ sum_to_zero(size).T
    elif teacher.flags.get("tie_word_embeddings", False):
        (final,) = family.norms[1]
        axes, gain = diagonalise(axes, vector(f"{final}.weight", None))
    return Rotation(axes, family, vector, lost, gain)


def balanced(covariance: np.ndarray, gradients: np.ndarray, weight: float) -> np.ndarray:
    """C / tr C + w P G P / tr P G P: what the stream holds, and what the loss feels, [d, d].

    Balanced truncation (Moore 1981, Principal component analysis in linear systems) weighs how much of a direction is
    reached against how much of it is observed, in axes that are not orthogonal; RMSNorm allows only a sum of the two.
    P projects on what is reached at all, so that a cut of what is never written stays exact.

    Args:
        covariance: C, Σ x̂ x̂ᵀ of what the norms read.
        gradients: G, Σ ĝ ĝᵀ of the loss by it.
        weight: w.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    reached = vectors[:, np.cumsum(values) > DEAD * values.sum()]
    felt = reached @ (reached.T @ gradients @ reached) @ reached.T
    trace = np.trace(felt)
    return covariance / np.trace(covariance) + (weight / trace * felt if trace else 0.0)


def principal_axes(covariance: np.ndarray, count: int) -> np.ndarray:
    """The `count` leading eigenvectors, the largest first: [d, d] to [d, count]."""
    _, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count])


def lost_energy(covariance: np.ndarray, axes: np.ndarray) -> float:
    """The share of the trace outside the span of `axes` [d, k]."""
    return 1.0 - float(np.sum(axes * (covariance @ axes)) / np.trace(covariance))


def diagonalise(axes: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another basis of the span of Q, and the diagonal [d'] that Qᵀ diag(gain) Q is in it: [d, d'], [d]."""
    values, vectors = np.linalg.eigh(axes.T @ (gain[:, None] * axes))
    return axes @ vectors, values


def sum_to_zero(size: int) -> np.ndarray:
    """Orthonormal columns that each sum to 0, [size, size - 1]: the reflection that takes e₁ to (1, ..., 1) / √size."""
    normal = np.full(size, 1 / sqrt(size))
    normal[0] -= 1.0
    reflection = np.eye(size) - 2 * np.outer(normal, normal) / max(normal @ normal, 1e-300)
    return reflection[:, 1:]


def turning(place: Place, rotation: Rotation, dtype: type[np.floating]) -> Callable[[np.ndarray], np.ndarray]:
    """What takes a weight, or rows of it, to the student's basis: its hidden dimension of d becomes d'.

    The map is made once: at d = 4096 that takes many times as long as the product with a few rows.

    Args:
        place: Where it stands; where its first dimension runs over hidden, all of it is taken at once.
        rotation: The change of basis.
        dtype: The type of its values, float32 or float64.
    """
    module, _, kind = place.key.rpartition(".")
    layered, shared = rotation.family.norms
    if module in layered or module in shared:
        vector = (rotation.gain if kind == "weight" else rotation.bias)(module, place.layer)
        return lambda _: vector
    matrix = rotation.map(place).astype(dtype)
    if hidden_first(place):
        return lambda weight: matrix.T @ weight
    return lambda weight: weight @ matrix


def hidden_first(place: Place) -> bool:
    """Whether a weight's first dimension is the residual stream's."""
    return place.weight.dims[0] == (("hidden",),)


def stored_vectors(read: Callable[[str], np.ndarray], family: Family) -> Callable[[str, int | None], np.ndarray]:
    """A `Rotation.vector` over a checkpoint, each vector read once.

    Args:
        read: From a weight's full name to its stored values in float64.
        family: Its table; what is added to stored gains is added.
    """
    known: dict[str, np.ndarray] = {}

    def vector(key: str, layer: int | None) -> np.ndarray:
        name = family.name_of(key, layer)
        if name not in known:
            known[name] = read(name) + (family.gain_offset if key.endswith(".weight") else 0.0)
        return known[name]

    return vector
