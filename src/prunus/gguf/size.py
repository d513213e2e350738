"""The exact size of a GGUF file in bytes, from a shape alone, before any weights exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.gguf.mixtures import choose
from prunus.gguf.tensors import FileTensor, plan_tensors
from prunus.gguf.vocabulary import Vocabulary, read_vocabulary
from prunus.gguf.writer import ALIGNED, keys_of
from prunus.llamacpp import ggml
from prunus.models.folder import PlannedFolder
from prunus.models.shape import Shape

_HEAD = 4 + 4 + 8 + 8  # magic, version, number of tensors, number of keys
_LENGTH, _KIND = 8, 4  # bytes of a length, and of a type's number
_DTYPE = "BF16"  # assumed type of the future weights


@dataclass(frozen=True)
class FileSizes:
    """File sizes of students that are cut from one model.

    Attributes:
        path: The folder of the model's tokenizer.
        config: Its config.json.
        shape: Its dimensions.
    """

    path: Path
    config: Mapping[str, Any]
    shape: Shape

    def __call__(self, format_name: str, shape: Shape) -> tuple[int, int]:
        """The bytes of the file that `write_gguf` would write for a shape, and of the weights in it.

        If the vocabulary will be cut, the tokens to keep are not known yet: the first ones are assumed.

        Raises:
            RecipeError: llama.cpp does not support the family or the tokenizer.
        """
        tensors = self._tensors(shape)
        names, shapes = [name for name, _ in tensors], [size for _, size in tensors]
        columns, dimensions = [size[-1] for size in shapes], [len(size) for size in shapes]
        choices = choose(format_name, names, columns, dimensions, shape)
        sizes = [
            prod(size[:-1]) * ggml.row_bytes(choice.kind, size[-1])
            for size, choice in zip(shapes, choices, strict=True)
        ]
        weights = sum(map(_filled, sizes))
        infos = sum(_text(name) + _KIND + 8 * len(size) + _KIND + 8 for name, size in tensors)
        return _filled(_HEAD + self._keys(format_name, shape) + infos) + weights, weights

    def _tensors(self, shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of a file; layers of the same kinds have the same shapes."""
        alike: dict[frozenset[str], list[int]] = {}
        for layer, kinds in enumerate(shape.kinds):
            alike.setdefault(kinds, []).append(layer)
        groups = list(alike.values())
        one = shape.of_layers([group[0] for group in groups])
        key = (one.pattern, *(getattr(one, name) for name in sorted(self.shape.dimensions())))
        if key not in self._planned:
            self._planned[key] = plan_tensors(PlannedFolder(self.path, self.config, one, _DTYPE))
        found = []
        for made in self._planned[key]:
            block, _, rest = made.name.removeprefix("blk.").partition(".")
            if rest and made.name.startswith("blk."):
                found += [(f"blk.{layer}.{rest}", made.shape) for layer in groups[int(block)]]
            else:
                found.append((made.name, made.shape))
        return found

    def _keys(self, format_name: str, shape: Shape) -> int:
        """Bytes of the keys: the tokenizer's are counted once."""
        folder = PlannedFolder(self.path, self.config, shape, _DTYPE)
        full, count = self._vocabulary, shape.vocab_size
        vocabulary = full
        if count < self.shape.vocab_size:
            scores = full.scores[:count]
            vocabulary = replace(full, tokens=full.tokens[:count], types=full.types[:count], scores=scores)
        tokenizer_keys = vocabulary.keys()
        if count not in self._tokenizer_bytes:
            self._tokenizer_bytes[count] = sum(_entry(key, value) for key, value in tokenizer_keys.items())
        keys = keys_of(folder, vocabulary, format_name)
        return self._tokenizer_bytes[count] + sum(_entry(key, keys[key]) for key in keys if key not in tokenizer_keys)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return read_vocabulary(self.path, self.shape.vocab_size)

    @cached_property
    def _planned(self) -> dict[tuple[Any, ...], list[FileTensor]]:
        return {}

    @cached_property
    def _tokenizer_bytes(self) -> dict[int, int]:
        return {}


def _filled(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED


def _text(text: str) -> int:
    return _LENGTH + len(text.encode())


def _entry(key: str, value: Any) -> int:
    return _text(key) + _KIND + _value(value)


def _value(value: Any) -> int:
    """Bytes of a value as `GGUFWriter` stores it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return 1
    if isinstance(value, (int, float, np.integer)):
        return 4
    return _KIND + _LENGTH + sum(_value(item) for item in value)
