"""The axes of every weight: the format of a family's table.

One line describes a weight, its dimensions from left to right:

    "vocab hidden"                                two dimensions
    "(heads head_dim) hidden"                     the first is a product of axes, the last of which varies fastest
    "(heads 3 head_dim) hidden"                   a product may contain a fixed number
    "(heads head_dim)+(kv_heads head_dim) hidden" concatenated segments: fused projections
    "hidden if attention_bias"                    exists only if that key of config.json is true
    "vocab hidden if not tie_word_embeddings"     exists only if that key is false
    "experts: (2 mlp) hidden"                     the experts of a layer stacked in one tensor, each of these dimensions
    "dense hidden in dense"                       only in layers of that kind
    "conv 1 kernel in conv"                       a weight of three dimensions, one of which is always 1

A layer can be of several kinds at once. In a mixture of experts it is `dense` or `sparse`, without or with experts; in
a family with a `pattern` it is also of the kind that the list in config.json names, such as `full_attention`.

Layers and experts are axes in names: a layer's weights are listed once, and `{experts}` in a name is the expert's
number. Every cut, count and check is derived from these lines. The tables are in models/families, one file per family;
no other code names a weight.
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
    "shared": "shared_expert_intermediate_size",
    "dense": "dense_intermediate_size",
    "positions": "max_position_embeddings",
    "conv": "conv_channels",
    "kernel": "conv_kernel",
    "ssm_heads": "mamba_num_heads",
    "ssm_groups": "mamba_n_groups",
    "ssm_head_dim": "mamba_head_dim",
    "state": "ssm_state_size",
    "linear_keys": "linear_num_key_heads",
    "linear_values": "linear_num_value_heads",
    "linear_key_dim": "linear_key_head_dim",
    "linear_value_dim": "linear_value_head_dim",
    "q_rank": "q_lora_rank",
    "kv_rank": "kv_lora_rank",
    "rope": "qk_rope_head_dim",
    "qk": "qk_head_dim",
    "kv": "kv_head_dim",
}
"""Each axis and the name of its size in a `Shape`."""

WHOLE = (
    "positions", "kernel", "ssm_head_dim", "state", "linear_key_dim", "linear_value_dim",
    "q_rank", "kv_rank", "rope", "qk", "kv",
)  # fmt: skip
"""Axes that are never cut. The last ones are those of latent attention (MLA): ranks, a head's part with positions, and
what a head has of queries and of keys and values."""

TIED = "tie_word_embeddings"
"""The condition of an LM head that may be tied to the embedding."""

Segment = tuple[str | int, ...]
_PRODUCT = r"(?:\([^()]+\)|\w+)"
_STACKED = "experts: "
_DIMENSION = re.compile(rf"{_PRODUCT}(?:\+{_PRODUCT})*")


@dataclass(frozen=True)
class Weight:
    """One parsed line of a table.

    Attributes:
        dims: The segments of each dimension, of one expert if stacked; a segment is the product of its axes, slowest
            first.
        condition: The key of config.json that decides whether the weight exists; empty if it always does.
        negated: Whether it exists if that key is false.
        stacked: Whether it has these dimensions for each expert of the layer, as the first dimension of the tensor.
        kind: The kind of the layers that have it; empty if all have it.
    """

    dims: tuple[tuple[Segment, ...], ...]
    condition: str = ""
    negated: bool = False
    stacked: bool = False
    kind: str = ""

    def exists(self, flags: Mapping[str, bool]) -> bool:
        """Whether a checkpoint has the weight, given the `flags` of its config."""
        return not self.condition or flags.get(self.condition, False) != self.negated

    def stands_in(self, kinds: frozenset[str]) -> bool:
        """Whether a layer of these kinds has the weight."""
        return not self.kind or self.kind in kinds

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The weight's shape, given the sizes of the axes."""
        leading = (sizes["experts"],) if self.stacked else ()
        return leading + tuple(sum(segment_size(segment, sizes) for segment in dim) for dim in self.dims)

    def has(self, axis: str) -> bool:
        """Whether any dimension runs over `axis`."""
        return any(axis in segment for dim in self.dims for segment in dim)

    def runs_over(self, axis: str, dim: int) -> bool:
        """Whether this is a matrix whose dimension `dim` runs over `axis`."""
        return len(self.dims) == 2 and any(axis in segment for segment in self.dims[dim])


def segment_size(segment: Segment, sizes: Mapping[str, int]) -> int:
    """The length of a segment, given the sizes of the axes."""
    return prod(item if isinstance(item, int) else sizes[item] for item in segment)


def positions(weight: Weight, sizes: Mapping[str, int], members: Callable[[str], np.ndarray]) -> list[np.ndarray]:
    """The indices, in each dimension of a weight, that belong to the selected members of its axes.

    In a segment that is a product of axes, such as (heads head_dim), all combinations of selected members are included.

    Args:
        weight: The table's line.
        sizes: The size of every axis.
        members: Returns the selected members of an axis.
    """
    result = []
    for dim in weight.dims:
        start, parts = 0, []
        for segment in dim:
            indices = np.zeros(1, dtype=np.int64)
            for item in segment:
                size = item if isinstance(item, int) else sizes[item]
                selected = np.arange(size) if isinstance(item, int) else members(item)
                indices = (indices[:, None] * size + selected[None, :]).reshape(-1)
            parts.append(start + indices)
            start += segment_size(segment, sizes)
        result.append(np.concatenate(parts))
    return result


@cache
def parse_weight(line: str) -> Weight:
    """Parse one line of a table.

    Raises:
        ValueError: A dimension names an unknown axis.
    """
    rest, _, condition = line.partition(" if ")
    shape, _, kind = rest.removeprefix(_STACKED).partition(" in ")
    dims = tuple(tuple(_segment(part) for part in dim.split("+")) for dim in _DIMENSION.findall(shape))
    unknown = {item for dim in dims for segment in dim for item in segment if isinstance(item, str)} - set(AXES)
    if unknown or not dims:
        raise ValueError(f"weight {line!r}: unknown axes {sorted(unknown)}; known: {', '.join(AXES)}")
    if kind and not kind.isidentifier():
        raise ValueError(f"weight {line!r}: in {kind!r}; expected one kind of layers")
    negated = condition.startswith("not ")
    return Weight(dims, condition.removeprefix("not ").strip(), negated, rest.startswith(_STACKED), kind)


def _segment(text: str) -> Segment:
    return tuple(int(item) if item.isdigit() else item for item in text.strip("()").split())
