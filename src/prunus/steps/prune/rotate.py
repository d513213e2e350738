"""Rotates the residual stream to its principal axes, so that the dropped dimensions are those with the least content.

    d, d' channels of the teacher and of the student; Q [d, d'] with orthonormal columns; G = diag of a norm's gain

RMSNorm is invariant to an orthogonal change of basis once its gain is folded into the linear layers that read it, so
one Q suffices for the whole network (SliceGPT, Ashkboos et al. 2024, arXiv 2401.15024, has one for each block and needs
adapters between them): embeddings and writers are multiplied by Q on the output side, readers become W G Q, and all
entries of a gain are equal. Two extensions are new here.

The final gain cannot be folded into a tied embedding. But any basis Q of the kept subspace is allowed. In the basis
that diagonalises Qᵀ G Q, the final norm keeps that diagonal as its gain, and E Q serves as both embedding and LM head.
This loses nothing beyond the cut.

LayerNorm subtracts the mean, so it sees d - 1 dimensions: all but the direction (1, ..., 1). The student's sees d' - 1:
its first d' - 1 principal axes are mapped to vectors whose entries sum to 0. The remaining direction, which the norm
never outputs, represents the norm's bias: exactly, whether or not the linear layers that read it have biases.
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
    """A change of basis for the whole network, restricted to the kept axes.

    Attributes:
        basis: Q, [d, d'].
        family: The family's table, which names the norm that each weight reads.
        vector: Returns a gain or bias of the teacher in float64, by its name in the table and its layer.
        lost: The share of the normalised stream's energy outside the kept axes.
        final_gain: The final norm's gain in this basis if embeddings are tied, [d']; otherwise None.
    """

    basis: np.ndarray
    family: Family
    vector: Callable[[str, int | None], np.ndarray]
    lost: float
    final_gain: np.ndarray | None

    @property
    def scale(self) -> float:
        """The factor on every gain: √(d / d') if no energy is lost, otherwise 1 (see `compensate`)."""
        return sqrt(self.basis.shape[0] / self.basis.shape[1]) if self.lost < DEAD else 1.0

    def gain(self, norm: str, layer: int | None) -> np.ndarray:
        """A norm's gain in the student, [d']: the root mean square of the teacher's in all channels."""
        if layer is None and self.final_gain is not None:
            return self.final_gain * self.scale
        return np.full(self.basis.shape[1], self._rms(f"{norm}.weight", layer) * self.scale)

    def bias(self, norm: str, layer: int | None) -> np.ndarray:
        """A LayerNorm's bias in the student, [d']: the root mean square of the teacher's, along (1, ..., 1)."""
        return np.full(self.basis.shape[1], self._rms(f"{norm}.bias", layer))

    def map(self, place: Place) -> np.ndarray:
        """The matrix [d, d'] that multiplies a weight's hidden dimension from the right.

        Q for weights that write the stream; G Q / |G| for weights that read a norm, plus b 1ᵀ / (d' |b|) for the norm's
        bias b, where |.| is the root mean square, as in `gain` and `bias`.
        """
        norm = self.family.norm_before(place.key)
        if norm is None:
            return self.basis
        layer = place.layer if norm not in self.family.norms[1] else None
        gain = self.vector(f"{norm}.weight", layer)
        result = self.basis * (gain / self._rms(f"{norm}.weight", layer))[:, None]
        rms = self._rms(f"{norm}.bias", layer) if self.family.has_bias(norm) else 0.0
        if rms:
            result = result + self.vector(f"{norm}.bias", layer)[:, None] / (rms * result.shape[1])
        return result

    def _rms(self, key: str, layer: int | None) -> float:
        return float(np.sqrt(np.mean(self.vector(key, layer) ** 2)))


def make_rotation(
    covariance: np.ndarray,
    criterion: np.ndarray,
    teacher: Shape,
    size: int,
    vector: Callable[[str, int | None], np.ndarray],
) -> Rotation:
    """The rotation to the principal axes of a matrix, restricted to `size` dimensions.

    Args:
        covariance: Σ x̂ x̂ᵀ over the inputs of the norms, [d, d].
        criterion: The matrix whose principal axes are kept, [d, d]: the covariance, or the result of `balanced`.
        teacher: The teacher's shape.
        size: d'.
        vector: See `Rotation`.
    """
    family = teacher.family
    axes = principal_axes(criterion, size - 1 if family.layer_norm else size)
    lost = lost_energy(covariance, axes)
    gain = None
    if family.layer_norm:
        axes = axes @ sum_to_zero(size).T
    elif teacher.flags.get("tie_word_embeddings", False):
        (final,) = family.norms[1]
        axes, gain = diagonalise(axes, vector(f"{final}.weight", None))
    return Rotation(axes, family, vector, lost, gain)


def balanced(covariance: np.ndarray, gradients: np.ndarray, weight: float) -> np.ndarray:
    """C / tr C + w P G P / tr P G P, [d, d]: energy in the stream plus sensitivity of the loss.

    Balanced truncation (Moore 1981, Principal component analysis in linear systems) balances reachability and
    observability of a direction, in axes that are not orthogonal; RMSNorm allows only a sum of the two. P projects on
    the reachable subspace, so that dropping directions that are never written remains exact.

    Args:
        covariance: C, Σ x̂ x̂ᵀ over the inputs of the norms, [d, d].
        gradients: G, Σ ĝ ĝᵀ over the gradients of the loss by x̂, [d, d].
        weight: w.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    reachable = vectors[:, np.cumsum(values) > DEAD * values.sum()]
    projected = reachable @ (reachable.T @ gradients @ reachable) @ reachable.T
    trace = np.trace(projected)
    return covariance / np.trace(covariance) + (weight / trace * projected if trace else 0.0)


def principal_axes(covariance: np.ndarray, count: int) -> np.ndarray:
    """The `count` leading eigenvectors, the largest first: [d, d] to [d, count]."""
    _, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count])


def lost_energy(covariance: np.ndarray, axes: np.ndarray) -> float:
    """The share of the trace outside the span of `axes` [d, k]."""
    return 1.0 - float(np.sum(axes * (covariance @ axes)) / np.trace(covariance))


def diagonalise(axes: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The basis [d, d'] of the span of Q in which Qᵀ diag(gain) Q is diagonal, and the diagonal [d'].

    Args:
        axes: Q, [d, d'].
        gain: [d].
    """
    values, vectors = np.linalg.eigh(axes.T @ (gain[:, None] * axes))
    return axes @ vectors, values


def sum_to_zero(size: int) -> np.ndarray:
    """Orthonormal columns that each sum to 0, [size, size - 1].

    All columns but the first of the reflection that maps e₁ to (1, ..., 1) / √size.
    """
    normal = np.full(size, 1 / sqrt(size))
    normal[0] -= 1.0
    reflection = np.eye(size) - 2 * np.outer(normal, normal) / max(normal @ normal, 1e-300)
    return reflection[:, 1:]


def weight_rotation(place: Place, rotation: Rotation, dtype: type[np.floating]) -> Callable[[np.ndarray], np.ndarray]:
    """The function that rotates a weight, or some of its rows: the hidden dimension changes from d to d'.

    The matrix is computed once: at d = 4096 that takes much longer than its product with a few rows.

    Args:
        place: The weight. If its first dimension is hidden, the function takes the whole weight.
        rotation: The change of basis.
        dtype: The data type of the computation, float32 or float64.
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
    """Whether a weight's first dimension is hidden, that of the residual stream."""
    return place.weight.dims[0] == (("hidden",),)


def stored_vectors(read: Callable[[str], np.ndarray], family: Family) -> Callable[[str, int | None], np.ndarray]:
    """A `Rotation.vector` that reads each vector of a checkpoint once.

    Args:
        read: Returns the stored values of a weight by its full name, in float64.
        family: The family's table; its gain offset is added to stored gains.
    """
    cache: dict[str, np.ndarray] = {}

    def vector(key: str, layer: int | None) -> np.ndarray:
        name = family.name_of(key, layer)
        if name not in cache:
            cache[name] = read(name) + (family.gain_offset if key.endswith(".weight") else 0.0)
        return cache[name]

    return vector
