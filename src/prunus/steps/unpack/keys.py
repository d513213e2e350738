"""The keys of a GGUF file, read one by one with their types; keys that are not read are refused by name.

An unknown key may change what the model computes; if it were ignored, the folder could compute something else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prunus.errors import ModelError
from prunus.llamacpp.reading import GgufFile

_REDUNDANT = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")
"""Keys of an architecture without effect, or that also follow from the tensors."""
_LARGEST = float(np.finfo(np.float32).max)
_NOTHING: tuple[Any, ...] = (None, False, 0, 0.0, [], "")


class Keys:
    """The keys of a file that start with its architecture's name.

    Args:
        file: The file.
    """

    def __init__(self, file: GgufFile) -> None:
        self.where, self.prefix = str(file.path), f"{file.architecture}."
        self.left = {key.removeprefix(self.prefix): file.keys[key] for key in file.keys if key.startswith(self.prefix)}
        for key in _REDUNDANT:
            self.left.pop(key, None)

    def whole(self, key: str, default: int | None = None) -> int:
        """A non-negative integer; if it is a list with a value per layer, all must be equal.

        Raises:
            ModelError: It is missing, is not an integer, or layers differ.
        """
        value = self.left.pop(key, default)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, list):
            raise ModelError(
                f"{self.where}: {self.prefix}{key} is {str(value)[:80]}: its value differs between layers, which no "
                "known family supports"
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ModelError(f"{self.where}: {self.prefix}{key} is {value!r:.80}; expected a whole number")
        return value

    def largest(self, key: str) -> int:
        """The largest of a key's numbers for each layer, which the family reads by itself later.

        Raises:
            ModelError: It is missing, or holds anything but whole numbers, one of them positive.
        """
        value = self.left.get(key)
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(item) is int and item >= 0 for item in values) or not max(values):
            raise ModelError(f"{self.where}: {self.prefix}{key} is {value!s:.80}; expected whole numbers, not all 0")
        return max(values)

    def number(self, key: str, default: float | None = None) -> float:
        """A number: the shortest decimal with the file's float32 value, 1e-6 rather than 9.99999997e-07.

        Raises:
            ModelError: It is missing, is not a number, or is not finite.
        """
        value = self.left.pop(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
            raise ModelError(f"{self.where}: {self.prefix}{key} is {value!r:.80}; expected a number")
        return float(str(np.float32(value)))

    def take(self, key: str, default: Any = None) -> Any:
        """A value of any type."""
        return self.left.pop(key, default)

    def only(self, key: str, *allowed: Any) -> None:
        """Read a key that may be missing or have one of these values.

        Raises:
            ModelError: It has another value.
        """
        value = self.left.pop(key, None)
        if value is not None and value not in allowed:
            raise ModelError(
                f"{self.where}: {self.prefix}{key} is {value!r:.80}; allowed: {' or '.join(map(repr, allowed))}"
            )

    def check_all_taken(self) -> None:
        """Refuse keys that were not read, unless their value is empty, zero or false.

        Raises:
            ModelError: Names the first such key.
        """
        for key, value in self.left.items():
            if value not in _NOTHING:
                raise ModelError(
                    f"{self.where}: {self.prefix}{key} is {value!s:.80}; Prunus does not know this key, and the "
                    "folder might compute something else"
                )


def listed(keys: dict[str, Any], key: str, kinds: type | tuple[type, ...], where: str) -> list[Any] | None:
    """A list of values of the given types; None if the key is missing.

    Raises:
        ModelError: It is not a list, or a value has another type or is not finite.
    """
    value = keys.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise ModelError(f"{where}: {key} is {value!r:.60}; expected a list")
    for number, item in enumerate(value):
        odd = isinstance(item, bool) or (isinstance(item, float) and not math.isfinite(item))
        if odd or not isinstance(item, kinds):
            raise ModelError(f"{where}: {key}: number {number} is {item!r:.60}")
    return value
