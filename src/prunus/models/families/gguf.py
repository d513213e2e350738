"""A family in llama.cpp: names of weights, assumptions of its code, and further keys of its files.

Names, suffixes and keys are llama.cpp's (gguf-py, `constants.py`; https://github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Config = Mapping[str, Any]
Sizes = Mapping[str, int]
"""Dimensions by their names in a `Shape`."""


class KeyReader(Protocol):
    """The keys of a file without the architecture's prefix; each is read once (see unpack/keys.py).

    Attributes:
        where: The file, for messages.
        prefix: The architecture's name and a dot, for messages.
    """

    where: str
    prefix: str

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; ModelError if it is missing and there is no default."""

    def number(self, key: str, default: float | None = None) -> float:
        """A number; ModelError if it is missing and there is no default."""

    def take(self, key: str, default: Any = None) -> Any:
        """A value of any type."""

    def only(self, key: str, *allowed: Any) -> None:
        """Read a key that may be missing; ModelError if it has another value than those allowed."""


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


def _no_fault(_: Config) -> str | None:
    return None


@dataclass(frozen=True)
class Required:
    """A value that llama.cpp assumes.

    Attributes:
        key: The key of config.json.
        value: The only value that llama.cpp supports.
        default: Transformers' default if config.json omits the key.
    """

    key: str
    value: Any
    default: Any = None


@dataclass(frozen=True)
class Gguf:
    """A family in llama.cpp.

    Attributes:
        architecture: The architecture's name.
        names: llama.cpp's name of each module in the family's table; of a weight whose last part is another, in full.
        pairs: Modules, by llama.cpp's names, whose rows interleave the two halves of rotary pairs, where transformers
            has one half of the head after the other.
        tiled: Axes, by another axis of which each unit has equally many of them, one after the other; llama.cpp has the
            first of each unit, then the second of each, and so on.
        decays: Vectors, by their key in the table, that are stored as -exp of them.
        windows: Whether it supports sliding windows in some layers.
        square: Whether it assumes that heads x head_dim is hidden_size, though the family does not.
        untied: Whether it requires a separate LM head even if the family ties it.
        tied: Whether it has no LM head of its own.
        biases: The conditions of the table's biases that it supports.
        factors: Whether it reads factors of single frequencies, which llama3 and longrope positions need.
        activations: The MLP activations that match its only one, by transformers' names.
        apart: Whether llama.cpp's mixtures of formats treat it as Falcon: no more bits for attention's outputs, and an
            LM head in 8 bits.
        required: Values of config.json that it assumes.
        query_factor: Maps config.json and sizes to a factor of the queries in the file; compensates for llama.cpp's
            divisor of queries.
        fault: Maps config.json to a description of other unsupported settings; None if all are supported.
        layer_fault: The same for its lists of layers, which are known after layers are selected.
        write: Maps config.json and sizes to keys of the file that only this family has.
        read: The inverse: maps keys, the config.json so far, and sizes to additions to config.json. Raises ModelError.
        recognised: If several families share the architecture, whether a file with these keys belongs to this family;
            None for the family of all other files.
    """

    architecture: str
    names: Mapping[str, str]
    pairs: tuple[str, ...] = ()
    tiled: Mapping[str, str] = field(default_factory=dict)
    decays: tuple[str, ...] = ()
    windows: bool = False
    square: bool = False
    untied: bool = False
    tied: bool = False
    biases: tuple[str, ...] = ()
    factors: bool = False
    activations: tuple[str, ...] = ("silu", "swish")
    apart: bool = False
    required: tuple[Required, ...] = ()
    query_factor: Callable[[Config, Sizes], float] | None = None
    fault: Callable[[Config], str | None] = _no_fault
    layer_fault: Callable[[Config], str | None] = _no_fault
    write: Callable[[Config, Sizes], dict[str, Any]] = _nothing
    read: Callable[[KeyReader, dict[str, Any], Sizes], dict[str, Any]] = _nothing
    recognised: Callable[[Mapping[str, Any]], bool] | None = None

    def name_of(self, key: str, layer: int | None) -> str:
        """llama.cpp's name of a weight in the table, such as `blk.3.attn_q.weight`; a layer's experts share one.

        Raises:
            KeyError: `names` lacks the module.
        """
        module, _, suffix = key.rpartition(".")
        prefix = "" if layer is None else f"blk.{layer}."
        if key in self.names:
            return f"{prefix}{self.names[key]}"
        return f"{prefix}{self.names[module]}.{suffix}"
