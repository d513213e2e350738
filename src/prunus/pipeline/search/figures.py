"""Checks of a budget's formats: known ones, their block size, and shapes that llama.cpp does not support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunus.errors import RecipeError, among
from prunus.gguf.metadata import check_shape
from prunus.gguf.mixtures import TYPES
from prunus.llamacpp.ggml import BLOCKS
from prunus.models.shape import Shape
from prunus.pipeline.search.config import Limit


def check_budget(budget: Sequence[Limit], where: str) -> None:
    """Refuse an empty budget, or a format that llama.cpp does not have.

    Raises:
        RecipeError: Names the format and the allowed ones.
    """
    if not budget:
        raise RecipeError(f"{where}: missing; give one, such as `q4_k_m file <= 2.0 GB, context 8192 in <= 3 GB`")
    for limit in budget:
        if limit.format is not None and limit.format not in TYPES:
            short = limit.format.removeprefix("gguf-")
            allowed = [name.removeprefix("gguf-") for name in TYPES]
            raise RecipeError(f"{where}: unknown format {short!r}{among(short, allowed, everything='docs/export.md')}")


def block_of(budget: Sequence[Limit]) -> int:
    """The largest block size, in values, of the budget's formats; 1 without formats."""
    return max((BLOCKS[TYPES[limit.format]][0] for limit in budget if limit.format in TYPES), default=1)


def unsupported(config: Mapping[str, Any], budget: Sequence[Limit]) -> Callable[[Shape], bool]:
    """A test whether llama.cpp does not support a shape; never true if the budget names no GGUF format."""
    files = [limit for limit in budget if limit.format is not None]

    def test(shape: Shape) -> bool:
        if not files:
            return False
        try:
            check_shape(config, shape, "search.budget")
        except RecipeError:
            return True
        return False

    return test
