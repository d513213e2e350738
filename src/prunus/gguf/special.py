"""Special tokens, end tokens and chat templates, from transformers to GGUF keys.

Model folders define these in half a dozen places that override each other. So they are read from the loaded tokenizer,
and the tokens that it adds around a text are found by tokenising one.
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
"""llama.cpp's names of tokens that end an answer."""

_DEFAULT = "default"


@dataclass(frozen=True)
class Special:
    """Special tokens and chat templates of a tokenizer and a model.

    Attributes:
        numbers: Token ids by llama.cpp's names: `bos`, `eos`, `eot`, `eom`, `unknown`, `padding`, if they exist.
        ends: The ids of all tokens that end an answer in transformers.
        add_bos: Whether a text begins with `bos`.
        add_eos: Whether it ends with `eos`.
        templates: Chat templates by name, in Jinja; the main one is `default`.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    add_bos: bool = False
    add_eos: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)

    def with_unknown(self, number: int) -> Special:
        """A copy with another `unknown`."""
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
    """Read special tokens from a loaded tokenizer and from the configs in its folder.

    Args:
        loaded: The tokenizer, as transformers loads it.
        folder: The model's folder.
        size: Rows of the embedding. Larger ids are ignored: a config may have defaults that do not fit.

    Raises:
        RecipeError: llama.cpp cannot add the tokens that the tokenizer adds around a text.
    """
    from prunus.models.pretrained import chat_templates  # imports transformers

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
            f"{folder}: its tokenizer adds {loaded.convert_ids_to_tokens(after)!r} after a text, but llama.cpp can "
            f"only add {loaded.eos_token!r} (eos_token). What works: the plain folder"
        )
    return Special(numbers, tuple(ends), before is not None, after is not None, chat_templates(loaded))


def _ends(loaded: Any, folder: Path, config: Mapping[str, Any]) -> list[int]:
    """The tokens that end an answer: the tokenizer's `eos_token`, and those at which `generate` stops.

    The latter are in generation_config.json, or without such a file in config.json.
    """
    file = folder / "generation_config.json"
    named = (read_object(file, ModelError) if file.is_file() else config).get("eos_token_id")
    found = [loaded.eos_token_id, *(named if isinstance(named, list) else [named])]
    return list(dict.fromkeys(end for end in found if isinstance(end, int) and end >= 0))


def _around(loaded: Any, where: str) -> tuple[int | None, int | None]:
    """The tokens that the tokenizer adds before and after a text.

    Raises:
        RecipeError: There are several.
    """
    read = loaded("a", return_special_tokens_mask=True)
    ids, added = read["input_ids"], read["special_tokens_mask"]
    text = [i for i, special in enumerate(added) if not special]
    before, after = (ids[: text[0]], ids[text[-1] + 1 :]) if text else ([], [])
    if len(before) > 1 or len(after) > 1:
        raise RecipeError(
            f"{where}: its tokenizer adds {len(before)} tokens before a text and {len(after)} after it; llama.cpp "
            "adds at most one. What works: the plain folder"
        )
    return (before[0] if before else None), (after[0] if after else None)
