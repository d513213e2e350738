"""The axes of every weight: how a family's table is written and read.

A weight is described by one line, its dimensions from left to right:

    "vocab hidden"                                two dimensions
    "(heads head_dim) hidden"                     the first is a product of axes, the last of them the fastest
    "(heads 3 head_dim) hidden"                   a product may hold a fixed number
    "(heads head_dim)+(kv_heads head_dim) hidden" segments one after the other: fused projections
    "hidden if attention_bias"                    stands in the checkpoint only where config.json says so
    "vocab hidden if not tie_word_embeddings"

Layers and experts are axes that stand in names: a layer's weights are listed once, and `{experts}` in a name is the
expert's number. Every cut, count and check is derived from these lines.
The tables stand in models/families, a file each. No weight is named anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

AXES = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "experts": "num_experts",
    "positions": "max_position_embeddings",
}
"""Each axis and what a `Shape` calls its size."""

TIED = "tie_word_embeddings"
"""The condition of a head that may be the embedding itself."""

Segment = tuple[str | int, ...]
_PRODUCT = r"(?:\([^()]+\)|\w+)"
_DIMENSION = re.compile(rf"{_PRODUCT}(?:\+{_PRODUCT})*")


@dataclass(frozen=True)
class Weight:
    """One line of a table, taken apart.

    Attributes:
        dims: For each dimension its segments, for each segment the axes whose product it is, slowest first.
        condition: The key of config.json that decides whether the weight exists; empty for always.
        negated: Whether it exists where that key is false.
    """

    dims: tuple[tuple[Segment, ...], ...]
    condition: str = ""
    negated: bool = False

    def exists(self, flags: Mapping[str, bool]) -> bool:
        """Whether a checkpoint whose config has these `flags` holds the weight."""
        return not self.condition or flags.get(self.condition, False) != self.negated

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The weight's shape where the axes have these `sizes`."""
        return tuple(sum(segment_size(segment, sizes) for segment in dim) for dim in self.dims)

    def has(self, axis: str) -> bool:
        """Whether any dimension runs over `axis`."""
        return any(axis in segment for dim in self.dims for segment in dim)

    def runs_over(self, axis: str, dim: int) -> bool:
        """Whether this is a matrix of which one dimension runs over `axis`."""
        return len(self.dims) == 2 and any(axis in segment for segment in self.dims[dim])


def segment_size(segment: Segment, sizes: Mapping[str, int]) -> int:
    """The length of a segment where the axes have these `sizes`."""
    return prod(item if isinstance(item, int) else sizes[item] for item in segment)


def positions(weight: Weight, sizes: Mapping[str, int], members: Callable[[str], np.ndarray]) -> list[np.ndarray]:
    """For each dimension of a weight the positions of some members of its axes.

    A segment that is a product of axes, such as (heads head_dim), has the product of what its axes have; the
    segments of a dimension follow one another.

    Args:
        weight: The table's line.
        sizes: The size of every axis.
        members: Which members of an axis.
    """
    result = []
    for dim in weight.dims:
        start, parts = 0, []
        for segment in dim:
            found = np.zeros(1, dtype=np.int64)
            for item in segment:
                size = item if isinstance(item, int) else sizes[item]
                some = np.arange(size) if isinstance(item, int) else members(item)
                found = (found[:, None] * size + some[None, :]).reshape(-1)
            parts.append(start + found)
            start += segment_size(segment, sizes)
        result.append(np.concatenate(parts))
    return result


@cache
def parse_weight(line: str) -> Weight:
    """Read one line of a table.

    Raises:
        ValueError: A dimension names an axis that does not exist.
    """
    shape, _, condition = line.partition(" if ")
    dims = tuple(tuple(_segment(part) for part in dim.split("+")) for dim in _DIMENSION.findall(shape))
    unknown = {item for dim in dims for segment in dim for item in segment if isinstance(item, str)} - set(AXES)
    if unknown or not dims:
        raise ValueError(f"weight {line!r}: unknown axes {sorted(unknown)}; there are {', '.join(AXES)}")
    negated = condition.startswith("not ")
    return Weight(dims, condition.removeprefix("not ").strip(), negated)


def _segment(text: str) -> Segment:
    return tuple(int(item) if item.isdigit() else item for item in text.strip("()").split())
