"""What a method of merging is, in the letters of `merge.methods`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Operands:
    """One weight of every model, and the values that it is merged by.

    Attributes:
        tensors: θ_k, of one shape, in the order of the models.
        base: θ_0, or None where the method has no base.
        weights: w_k.
        densities: The share of each δ_k's values that is kept, in (0, 1].
        t: The place on the arc, from 0 to 1.
        decay: How much less each checkpoint counts than the next one, in (0, 1].
        scale: λ.
        normalize: Whether sums are divided by the sum of the weights.
        chance: A generator for each model, by its place from 0.
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
        assert self.base is not None  # `MergeConfig.check_fits` asked for it
        return self.base

    @property
    def deltas(self) -> list[Tensor]:
        """δ_k."""
        return [tensor - self.origin for tensor in self.tensors]


@dataclass(frozen=True)
class MergeMethod:
    """A method of merging.

    Attributes:
        merge: Makes one weight of the merged model. None where whole layers are taken as they are.
        result: What comes out, in a line for the docs.
        options: The options that it reads, beside `parts`. The properties below follow from them.
        source: The paper.
        note: What help says of it behind its name.
        normalizes: Whether it divides by the sum of the weights unless told otherwise, as mergekit has it.
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
        """Whether it merges differences to a model that all descend from."""
        return "base" in self.options

    @property
    def weighted(self) -> bool:
        """Whether each model has a weight."""
        return "weights" in self.options

    @property
    def sparse(self) -> bool:
        """Whether only a share of the differences is kept."""
        return "densities" in self.options

    @property
    def interpolates(self) -> bool:
        """Whether it goes from one model to one other."""
        return "t" in self.options
