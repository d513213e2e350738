"""Special tokens, the ends of an answer and chat templates: what transformers does with them, as llama.cpp is told.

Files say these things in half a dozen places, and tokenizers override each other's; so they are taken from the loaded
tokenizer, and what it puts around a text from a trial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, RecipeError
from prunus.files import read_object

_END_NAMES = ("eos", "eot", "eom")
"""The names that llama.cpp has for tokens that end an answer."""

_DEFAULT = "default"


@dataclass(frozen=True)
class Special:
    """What a tokenizer and a model treat specially.

    Attributes:
        numbers: Token ids by llama.cpp's names: `bos`, `eos`, `eot`, `eom`, `unknown`, `padding`, those there are.
        ends: The ids of all tokens that end an answer in transformers.
        add_bos: Whether a text begins with `bos`.
        add_eos: Whether it ends with `eos`.
        templates: Chat templates by name, in Jinja; the usual one is `default`.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    add_bos: bool = False
    add_eos: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)

    def with_unknown(self, number: int) -> Special:
        """The same with another `unknown`."""
        return replace(self, numbers={**self.numbers, "unknown": number})

    def keys(self) -> dict[str, Any]:
        """The keys of a GGUF file."""
        named = {re.sub("[^A-Za-z0-9]", "_", name): text for name, text in self.templates.items() if name != _DEFAULT}
        keys: dict[str, Any] = {
            "tokenizer.ggml.add_bos_token": self.add_bos,
            "tokenizer.ggml.add_eos_token": self.add_eos,
            **{f"tokenizer.ggml.{name}_token_id": number for name, number in self.numbers.items()},
            **{f"tokenizer.chat_template.{name}": text for name, text in named.items()},
        }
        if named:
            keys["tokenizer.chat_templates"] = list(named)
        if _DEFAULT in self.templates:
            keys["tokenizer.chat_template"] = self.templates[_DEFAULT]
        return keys


def read_special(loaded: Any, folder: Path, size: int) -> Special:
    """Read what is special from a loaded tokenizer and from the configs beside it.

    Args:
        loaded: The tokenizer, as transformers loads it.
        folder: The model's folder.
        size: Rows of the embedding. A number beyond is of no token: a config may have defaults that do not fit.

    Raises:
        RecipeError: What the tokenizer puts around a text cannot be told to llama.cpp.
    """
    from prunus.models.load import chat_templates  # imports torch

    config = read_object(folder / "config.json", ModelError)
    before, after = _around(loaded, str(folder))
    ends = [end for end in _ends(loaded, folder, config) if end < size]
    numbers = dict(zip(_END_NAMES, ends, strict=False))
    for name, key in (("bos", "bos"), ("unknown", "unk"), ("padding", "pad")):
        number = getattr(loaded, f"{key}_token_id")
        number = config.get(f"{key}_token_id") if number is None else number
        if isinstance(number, int) and 0 <= number < size:
            numbers[name] = number
    if before is not None:
        numbers["bos"] = before
    if after is not None and after != numbers.get("eos"):
        raise RecipeError(
            f"{folder}: its tokenizer puts {loaded.convert_ids_to_tokens(after)!r} behind a text, and llama.cpp can "
            f"only put {loaded.eos_token!r} (eos_token) there. What works: the plain folder"
        )
    return Special(numbers, tuple(ends), before is not None, after is not None, chat_templates(loaded))


def _ends(loaded: Any, folder: Path, config: Mapping[str, Any]) -> list[int]:
    """The tokens that end an answer: the tokenizer's `eos_token`, and those that `generate` stops at.

    The latter stand in generation_config.json, or without such a file in config.json.
    """
    file = folder / "generation_config.json"
    named = (read_object(file, ModelError) if file.is_file() else config).get("eos_token_id")
    found = [loaded.eos_token_id, *(named if isinstance(named, list) else [named])]
    return list(dict.fromkeys(end for end in found if isinstance(end, int) and end >= 0))


def _around(loaded: Any, where: str) -> tuple[int | None, int | None]:
    """The token that the tokenizer puts before a text, and the one behind it.

    Raises:
        RecipeError: There are several.
    """
    read = loaded("a", return_special_tokens_mask=True)
    ids, added = read["input_ids"], read["special_tokens_mask"]
    text = [i for i, special in enumerate(added) if not special]
    before, after = (ids[: text[0]], ids[text[-1] + 1 :]) if text else ([], [])
    if len(before) > 1 or len(after) > 1:
        raise RecipeError(
            f"{where}: its tokenizer puts {len(before)} tokens before a text and {len(after)} behind it; llama.cpp "
            "puts at most one. What works: the plain folder"
        )
    return (before[0] if before else None), (after[0] if after else None)
