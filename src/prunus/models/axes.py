"""The axes of every weight: how a family's table is written and read.

A weight is described by one line, its dimensions from left to right:

    "vocab hidden"                      two dimensions
    "(heads head_dim) hidden"           the first is the product of two axes, the last of them the fastest
    "hidden if attention_bias"          stands in the checkpoint only where config.json says so
    "vocab hidden if not tie_word_embeddings"

Every cut, count and check is derived from these lines. No weight is ever named anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from types import MappingProxyType

AXES = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}
"""Each axis and the key of config.json that holds its size."""

PER_LAYER = ("mlp", "heads", "kv_heads")
"""Axes of which every layer may keep other members. The rest are shared by the whole network."""

_DIMENSION = re.compile(r"\(([^()]+)\)|(\S+)")


@dataclass(frozen=True)
class Weight:
    """One line of a table, taken apart.

    Attributes:
        dims: For each dimension the axes whose product it is, slowest first.
        condition: The key of config.json that decides whether the weight exists; empty for always.
        negated: Whether it exists where that key is false.
    """

    dims: tuple[tuple[str, ...], ...]
    condition: str = ""
    negated: bool = False

    def exists(self, flags: Mapping[str, bool]) -> bool:
        """Whether a checkpoint whose config has these `flags` holds the weight."""
        return not self.condition or flags.get(self.condition, False) != self.negated

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The weight's shape where the axes have these `sizes`."""
        return tuple(prod(sizes[axis] for axis in axes) for axes in self.dims)

    def has(self, axis: str) -> bool:
        """Whether any dimension runs over `axis`."""
        return any(axis in axes for axes in self.dims)

    def reads(self, axis: str) -> bool:
        """Whether this is a matrix whose input (its last dimension) runs over `axis`."""
        return len(self.dims) == 2 and axis in self.dims[-1]


@cache
def parse_weight(line: str) -> Weight:
    """Read one line of a table.

    Raises:
        ValueError: A dimension names an axis that does not exist.
    """
    shape, _, condition = line.partition(" if ")
    dims = tuple(tuple((group or single).split()) for group, single in _DIMENSION.findall(shape))
    unknown = {axis for axes in dims for axis in axes} - set(AXES)
    if unknown or not dims:
        raise ValueError(f"weight {line!r}: unknown axes {sorted(unknown)}; there are {', '.join(AXES)}")
    negated = condition.startswith("not ")
    return Weight(dims, condition.removeprefix("not ").strip(), negated)


@dataclass(frozen=True)
class Family:
    """The table of one family of models.

    Attributes:
        name: What to call it.
        model_types: The `model_type` values of config.json that it covers.
        layer: The prefix of a layer's weights, with `{}` for the layer's number.
        shared: Weights that stand once, by name.
        layered: Weights of each layer, by the name after the prefix.
        divisible: Pairs of config keys of which the first must be a multiple of the second, or stock
            transformers refuses the config.
        lists: Keys of config.json that hold one entry a layer, and are cut with the layers.
        flags: The defaults of the boolean keys that the table's conditions ask for.
    """

    name: str
    model_types: tuple[str, ...]
    layer: str
    shared: Mapping[str, str]
    layered: Mapping[str, str]
    divisible: tuple[tuple[str, str], ...] = ()
    lists: tuple[str, ...] = ("layer_types",)
    flags: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))

    def weight(self, name: str) -> tuple[Weight, int | None] | None:
        """The weight of that full name and the number of its layer, or None where the table has no such name."""
        if name in self.shared:
            return parse_weight(self.shared[name]), None
        head, _, tail = self.layer.partition("{}")
        match = re.fullmatch(re.escape(head) + r"(\d+)" + re.escape(tail) + r"(.+)", name)
        if match is None or match[2] not in self.layered:
            return None
        return parse_weight(self.layered[match[2]]), int(match[1])

    def renumber(self, name: str, layer: int) -> str:
        """The name of the same weight in another layer."""
        head, _, tail = self.layer.partition("{}")
        return re.sub(f"^{re.escape(head)}\\d+{re.escape(tail)}", lambda _: self.layer.format(layer), name)

    def readers(self, axis: str) -> list[str]:
        """The modules of a layer whose input runs over `axis`: what scoring watches to see the axis at work."""
        return [_module(name) for name, line in self.layered.items() if parse_weight(line).reads(axis)]

    def norms(self) -> tuple[list[str], list[str]]:
        """The modules that normalise the residual stream: those of a layer, and those that stand once."""
        return _norms(self.layered), _norms(self.shared)


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _norms(table: Mapping[str, str]) -> list[str]:
    gains = {name for name, line in table.items() if parse_weight(line).dims == (("hidden",),)}
    return [_module(name) for name in table if name in gains and name.endswith(".weight")]
