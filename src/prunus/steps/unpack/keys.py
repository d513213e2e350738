"""The keys of a GGUF file, taken one by one: each has a type, and one that nobody takes is refused by name.

A key that is not understood may change what the model computes; left aside in silence, the folder would compute
something else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prunus.errors import ModelError
from prunus.llamacpp.reading import GgufFile

_SAID_ELSEWHERE = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")
"""Keys of an architecture that change nothing, or that the tensors say too."""
_LARGEST = float(np.finfo(np.float32).max)
_NOTHING: tuple[Any, ...] = (None, False, 0, 0.0, [], "")


class Keys:
    """The keys of a file that begin with its architecture's name.

    Args:
        file: The file.
    """

    def __init__(self, file: GgufFile) -> None:
        self.where, self.prefix = str(file.path), f"{file.architecture}."
        self.left = {key.removeprefix(self.prefix): file.keys[key] for key in file.keys if key.startswith(self.prefix)}
        for key in _SAID_ELSEWHERE:
            self.left.pop(key, None)

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; where it is a list with one for each layer, all must be the same.

        Raises:
            ModelError: It is missing, is none, or layers differ.
        """
        value = self.left.pop(key, default)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, list):
            raise ModelError(
                f"{self.where}: {self.prefix}{key} is {str(value)[:80]}: layers that differ, which no family that "
                "Prunus knows has"
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ModelError(f"{self.where}: {self.prefix}{key} is {value!r:.80}; expected a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number, as the shortest that rounds to what the file has in float32: 1e-6 rather than 9.99999997e-07.

        Raises:
            ModelError: It is missing, is none, or is not finite.
        """
        value = self.left.pop(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
            raise ModelError(f"{self.where}: {self.prefix}{key} is {value!r:.80}; expected a number")
        return float(str(np.float32(value)))

    def take(self, key: str, default: Any = None) -> Any:
        """A value of any type."""
        return self.left.pop(key, default)

    def only(self, key: str, *allowed: Any) -> None:
        """Take a key that may be missing or have one of these values.

        Raises:
            ModelError: It has another.
        """
        value = self.left.pop(key, None)
        if value is not None and value not in allowed:
            raise ModelError(
                f"{self.where}: {self.prefix}{key} is {value!r:.80}; Prunus knows this architecture with "
                f"{' or '.join(map(repr, allowed))} alone"
            )

    def check_all_taken(self) -> None:
        """Refuse what is left, unless it says that there is none of something.

        Raises:
            ModelError: Names the first such key.
        """
        for key, value in self.left.items():
            if value not in _NOTHING:
                raise ModelError(
                    f"{self.where}: {self.prefix}{key} is {value!s:.80}; Prunus does not know what it changes, and "
                    "would compute something else"
                )


def listed(keys: dict[str, Any], key: str, kinds: type | tuple[type, ...], where: str) -> list[Any] | None:
    """A list of a file's, of values of one kind; None where there is none.

    Raises:
        ModelError: It is no list, or a value of it is of another kind or not finite.
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
