"""How long a GGUF file will be: to the byte, from a shape alone, before there are any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.gguf.mixtures import choose
from prunus.gguf.tensors import Made, plan_tensors
from prunus.gguf.vocabulary import Vocabulary, read_vocabulary
from prunus.gguf.writer import ALIGNED, keys_of
from prunus.llamacpp import ggml
from prunus.models.folder import PlannedFolder
from prunus.models.shape import Shape

_HEAD = 4 + 4 + 8 + 8  # magic, version, and how many tensors and keys there are
_LENGTH, _KIND = 8, 4  # bytes of a length, and of the number of a type
_DTYPE = "BF16"  # of the weights that are to be


@dataclass(frozen=True)
class FileSizes:
    """The sizes of the files of students that are cut from one model.

    Attributes:
        path: Where the model's tokenizer is.
        config: Its config.json.
        shape: Its dimensions.
    """

    path: Path
    config: Mapping[str, Any]
    shape: Shape

    def __call__(self, format_name: str, shape: Shape) -> tuple[int, int]:
        """The bytes of the file that `write_gguf` would write of a shape, and those of the weights in it.

        Which tokens stay of a vocabulary that is to be cut is not known yet: as if they were the first.

        Raises:
            RecipeError: llama.cpp has no such family, or no equal of its tokenizer.
        """
        tensors = self._tensors(shape)
        names, shapes = [name for name, _ in tensors], [size for _, size in tensors]
        columns, dimensions = [size[-1] for size in shapes], [len(size) for size in shapes]
        choices = choose(format_name, names, columns, dimensions, shape.num_hidden_layers, shape.num_experts)
        sizes = [
            prod(size[:-1]) * ggml.row_bytes(choice.kind, size[-1])
            for size, choice in zip(shapes, choices, strict=True)
        ]
        weights = sum(map(_filled, sizes))
        told = sum(_text(name) + _KIND + 8 * len(size) + _KIND + 8 for name, size in tensors)
        return _filled(_HEAD + self._keys(format_name, shape) + told) + weights, weights

    def _tensors(self, shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of a file: those of one layer are those of every layer."""
        key = tuple(shape.with_dimensions({"num_hidden_layers": 1}).dimensions().values())
        if key not in self._planned:
            one = shape.with_dimensions({"num_hidden_layers": 1})
            self._planned[key] = plan_tensors(PlannedFolder(self.path, self.config, one, _DTYPE))
        first = "blk.0."
        found = []
        for made in self._planned[key]:
            layers = range(shape.num_hidden_layers) if made.name.startswith(first) else [None]
            for layer in layers:
                name = made.name if layer is None else f"blk.{layer}.{made.name.removeprefix(first)}"
                found.append((name, made.shape))
        return found

    def _keys(self, format_name: str, shape: Shape) -> int:
        """Bytes of the keys: the tokenizer's are counted once."""
        folder = PlannedFolder(self.path, self.config, shape, _DTYPE)
        words = self._vocabulary
        if shape.vocab_size < self.shape.vocab_size:
            count = shape.vocab_size
            words = replace(words, tokens=words.tokens[:count], types=words.types[:count], scores=words.scores[:count])
        own = words.keys()
        if shape.vocab_size not in self._words:
            self._words[shape.vocab_size] = sum(_entry(key, value) for key, value in own.items())
        keys = keys_of(folder, words, format_name)
        return self._words[shape.vocab_size] + sum(_entry(key, keys[key]) for key in keys if key not in own)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return read_vocabulary(self.path, self.shape.vocab_size)

    @cached_property
    def _planned(self) -> dict[tuple[int, ...], list[Made]]:
        return {}

    @cached_property
    def _words(self) -> dict[int, int]:
        return {}


def _filled(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED


def _text(text: str) -> int:
    return _LENGTH + len(text.encode())


def _entry(key: str, value: Any) -> int:
    return _text(key) + _KIND + _value(value)


def _value(value: Any) -> int:
    """Bytes of a value as `GGUFWriter` keeps it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return 1
    if isinstance(value, (int, float, np.integer)):
        return 4
    return _KIND + _LENGTH + sum(_value(item) for item in value)
