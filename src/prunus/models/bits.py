"""Few bits per weight, for a frozen model: what is allowed, and what it takes. The tensors are in `quantized`."""

from __future__ import annotations

from typing import Literal

from prunus.errors import RecipeError
from prunus.models.shape import Shape

Bits = Literal[4, 8]
"""Bits of a weight of the layers' linear modules."""

GROUP = 32
"""Weights of a row that share a scale and a smallest value, in 4 bits."""


def check_bits(bits: Bits | None, shape: Shape, where: str) -> None:
    """Refuse few bits for a mixture of experts, whose experts are no linear modules.

    Raises:
        RecipeError: Names the option.
    """
    if bits is not None and shape.num_experts:
        raise RecipeError(
            f"{where}: {bits}; not for a mixture of experts, whose experts are no linear modules; allowed: to leave it "
            "out"
        )


def frozen_bytes(shape: Shape, bits: Bits | None, each: int = 4) -> int:
    """Bytes of a frozen model's weights in memory: the layers' matrices in `bits`, the others of `each` bytes."""
    if bits is None:
        return shape.parameters * each
    matrices = shape.layer_matrices()
    whole = sum(rows * columns for rows, columns in matrices)
    if bits == 8:
        stored = sum(rows * columns + 4 * rows for rows, columns in matrices)
    else:
        stored = sum(rows * -(-columns // GROUP) * (GROUP // 2 + 4) for rows, columns in matrices)
    return (shape.parameters - whole) * each + stored
