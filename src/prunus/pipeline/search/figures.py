"""Figures of shapes that dimensions alone do not give: bytes of files, and what an engine has no model of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunus.errors import RecipeError, nearest
from prunus.gguf.metadata import check_shape
from prunus.gguf.mixtures import TYPES
from prunus.llamacpp.ggml import BLOCKS
from prunus.models.shape import Shape
from prunus.pipeline.search.config import Limit


def check_budget(budget: Sequence[Limit], where: str) -> None:
    """Refuse a budget that says nothing, or a format that llama.cpp has not.

    Raises:
        RecipeError: Names the limit, and what is allowed.
    """
    if not budget:
        raise RecipeError(f"{where}: missing; such as `q4_k_m file <= 2.0 GB, context 8192 in <= 3 GB`")
    for limit in budget:
        if limit.format is not None and limit.format not in TYPES:
            short = limit.format.removeprefix("gguf-")
            allowed = [name.removeprefix("gguf-") for name in TYPES]
            raise RecipeError(
                f"{where}: unknown format {short!r}{nearest(short, allowed)}; there are: {', '.join(allowed)}"
            )


def block_of(budget: Sequence[Limit]) -> int:
    """The values of a block of the budget's formats, the largest; 1 where there is none."""
    return max((BLOCKS[TYPES[limit.format]][0] for limit in budget if limit.format in TYPES), default=1)


def refused(config: Mapping[str, Any], budget: Sequence[Limit]) -> Callable[[Shape], bool]:
    """Whether llama.cpp has no such shape, where the budget is of a file of its."""
    files = [limit for limit in budget if limit.format is not None]

    def refuses(shape: Shape) -> bool:
        if not files:
            return False
        try:
            check_shape(config, shape, "search.budget")
        except RecipeError:
            return True
        return False

    return refuses
