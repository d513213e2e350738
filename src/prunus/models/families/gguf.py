"""How llama.cpp holds a family: what it calls the weights, what it takes for granted, what else its file says.

Names, suffixes and keys are llama.cpp's own (gguf-py, `constants.py`; https://github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Config = Mapping[str, Any]
Sizes = Mapping[str, int]
"""Dimensions by the names that a `Shape` has for them."""


class KeyReader(Protocol):
    """The keys of a file without the architecture's name before them; each is taken once (see unpack/keys.py).

    Attributes:
        where: The file, for messages.
        prefix: The architecture's name and a dot, for messages.
    """

    where: str
    prefix: str

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; ModelError where it is missing without a default."""

    def number(self, key: str, default: float | None = None) -> float:
        """A number; ModelError where it is missing without a default."""

    def take(self, key: str, default: Any = None) -> Any:
        """A value of any type."""

    def only(self, key: str, *allowed: Any) -> None:
        """Take a key that may be missing; ModelError where it has none of these values."""


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


def _no_fault(_: Config) -> str | None:
    return None


@dataclass(frozen=True)
class Required:
    """A value that llama.cpp takes for granted.

    Attributes:
        key: Of config.json.
        value: The only one that llama.cpp computes.
        default: What transformers takes where a config leaves it out.
    """

    key: str
    value: Any
    default: Any = None


@dataclass(frozen=True)
class Gguf:
    """How llama.cpp holds a family.

    Attributes:
        architecture: Its name there.
        names: What llama.cpp calls each module of the family's table.
        pairs: Modules, by their names there, in whose rows the two halves of a rotary pair stand side by side, where
            transformers has one half of the head after the other.
        windows: Whether it knows which layers attend in a window only.
        square: Whether it takes heads x head_dim to be hidden_size, though the family does not.
        untied: Whether it asks for an LM head of its own even where the family ties it.
        biases: The conditions of the table's biases that it has.
        factors: Whether it reads factors of single frequencies, which llama3's and longrope's positions are told by.
        activations: The activations of the MLP that it computes as its one, by transformers' names.
        required: Values of config.json that it takes for granted.
        query_factor: From config.json and sizes to what queries are multiplied by in the file, where llama.cpp divides
            them by a number of its own.
        fault: From config.json to what else of it llama.cpp computes otherwise, in words; None for nothing.
        layer_fault: The same of its lists of layers, known once layers are chosen.
        write: From config.json and sizes to keys of the file that only this family has.
        read: The way back: from keys, the config.json so far and sizes to what is added to it. Raises ModelError.
        recognised: Where several families have this architecture, whether a file with these keys is this family's; None
            for the family that all other files are of.
    """

    architecture: str
    names: Mapping[str, str]
    pairs: tuple[str, ...] = ()
    windows: bool = False
    square: bool = False
    untied: bool = False
    biases: tuple[str, ...] = ()
    factors: bool = False
    activations: tuple[str, ...] = ("silu", "swish")
    required: tuple[Required, ...] = ()
    query_factor: Callable[[Config, Sizes], float] | None = None
    fault: Callable[[Config], str | None] = _no_fault
    layer_fault: Callable[[Config], str | None] = _no_fault
    write: Callable[[Config, Sizes], dict[str, Any]] = _nothing
    read: Callable[[KeyReader, dict[str, Any], Sizes], dict[str, Any]] = _nothing
    recognised: Callable[[Mapping[str, Any]], bool] | None = None

    def name_of(self, key: str, layer: int | None) -> str:
        """The name of a weight of the table, such as `blk.3.attn_q.weight`; experts of a layer share one.

        Raises:
            KeyError: The table has a module that `names` leaves out.
        """
        module, _, suffix = key.rpartition(".")
        prefix = "" if layer is None else f"blk.{layer}."
        return f"{prefix}{self.names[module]}.{suffix}"
