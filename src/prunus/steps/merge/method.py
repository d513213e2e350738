"""The definition of a merge method, in the notation of `merge.methods`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Operands:
    """One weight of every model, and the values for merging it.

    Attributes:
        tensors: θ_k, all of one shape, in the order of the models.
        base: θ_0, or None if the method has no base.
        weights: w_k.
        densities: The fraction of each δ_k's values to keep, in (0, 1].
        t: The position on the arc, from 0 to 1.
        decay: The weight of each checkpoint relative to the next one, in (0, 1].
        scale: λ.
        normalize: Whether sums are divided by the sum of the weights.
        chance: Random generator of each model, by its number from 0.
    """

    tensors: Sequence[Tensor]
    base: Tensor | None
    weights: Sequence[float]
    densities: Sequence[float]
    t: float
    decay: float
    scale: float
    normalize: bool
    chance: Callable[[int], Generator]

    @property
    def origin(self) -> Tensor:
        """θ_0 of a method that has a base."""
        assert self.base is not None  # `MergeConfig.check_fits` requires it
        return self.base

    @property
    def deltas(self) -> list[Tensor]:
        """δ_k."""
        return [tensor - self.origin for tensor in self.tensors]


@dataclass(frozen=True)
class MergeMethod:
    """A method of merging.

    Attributes:
        merge: Computes one weight of the merged model. None if whole layers are copied.
        result: The formula, as a line for the docs.
        options: The options that it reads, in addition to `parts`. The properties below follow from them.
        source: The paper.
        note: Explanation after its name in help texts.
        normalizes: Whether it divides by the sum of the weights by default, as in mergekit.
        single: Whether one model is enough.
    """

    merge: Callable[[Operands], Tensor] | None
    result: str
    options: tuple[str, ...]
    source: str
    note: str = ""
    normalizes: bool = False
    single: bool = False

    @property
    def based(self) -> bool:
        """Whether it merges differences to a common ancestor."""
        return "base" in self.options

    @property
    def weighted(self) -> bool:
        """Whether each model has a weight."""
        return "weights" in self.options

    @property
    def sparse(self) -> bool:
        """Whether only a fraction of the differences is kept."""
        return "densities" in self.options

    @property
    def interpolates(self) -> bool:
        """Whether it interpolates between two models."""
        return "t" in self.options
