"""A tokenizer, as transformers loads it, in llama.cpp's form: tokens with kinds, and merges or scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunus.errors import ExportError, ModelError, PrunusError, RecipeError
from prunus.gguf.pretokenizers import byte_level, parts_of, space_prefix
from prunus.gguf.special import Special, read_special
from prunus.gguf.unigram import read_unigram

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's numbers for kinds of tokens."""

_NEVER = -1e9  # the score of a token that no merge makes


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, ready to be written.

    Attributes:
        model: `gpt2` for a byte-level BPE, `llama` for one like sentencepiece's, `t5` for a Unigram.
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: Every token, by id.
        types: The kind of each token.
        scores: With `llama`, priorities of merges, highest first; with `t5`, log-probabilities of tokens.
        merges: With `gpt2`, the merges in order.
        special: Special tokens, end tokens and chat templates.
        space_prefix: Whether a space is added before a text.
        doubled: Whether only llama.cpp adds a space before a text that already begins with one.
        merge_spaces: With `t5`, whether repeated spaces are merged.
        charsmap: With `t5`, sentencepiece's table of characters.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    special: Special = field(default_factory=Special)
    space_prefix: bool = False
    doubled: bool = False
    merge_spaces: bool = False
    charsmap: bytes = b""

    def keys(self) -> dict[str, Any]:
        """Its keys in the file."""
        found: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": self.types,
            "tokenizer.ggml.add_space_prefix": self.space_prefix,
            **self.special.keys(),
        }
        if self.scores:
            found["tokenizer.ggml.scores"] = self.scores
        if self.model == "t5":
            found["tokenizer.ggml.remove_extra_whitespaces"] = self.merge_spaces
        if self.charsmap:
            found["tokenizer.ggml.precompiled_charsmap"] = self.charsmap
        if self.merges:
            found["tokenizer.ggml.merges"] = self.merges
        return found


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a model's folder, as transformers loads it.

    Args:
        folder: The model's folder.
        size: Rows of the embedding; rows without a token get a placeholder.

    Raises:
        RecipeError: There is none, or llama.cpp has no equivalent.
        ExportError: It has an unknown part.
    """
    from prunus.models.pretrained import load_tokenizer  # imports transformers

    try:
        loaded = load_tokenizer(folder)
    except ModelError as error:
        raise RecipeError(f"{error}; GGUF is written from the tokenizer that transformers loads") from None
    if not loaded.is_fast:
        raise RecipeError(
            f"{folder}: {type(loaded).__name__} is a slow tokenizer; GGUF is written from one that has a tokenizer.json"
        )
    tokenizer = json.loads(loaded.backend_tokenizer.to_str())  # complete, with defaults that the file omits
    try:
        found = _vocabulary(tokenizer, size, str(folder))
        special = read_special(loaded, folder, size)
    except PrunusError:
        raise
    except Exception as error:
        raise ExportError(
            f"{folder}: its tokenizer has a part that Prunus cannot write as GGUF: {type(error).__name__}: {error}"
        ) from error
    if found.model == "t5":
        special = special.with_unknown(found.types.index(UNKNOWN))
    return replace(found, special=special)


def _vocabulary(tokenizer: Mapping[str, Any], size: int, where: str) -> Vocabulary:
    """The vocabulary without special tokens.

    Raises:
        RecipeError: llama.cpp has no equivalent.
    """
    model = tokenizer["model"]
    if model["type"] not in ("BPE", "Unigram"):
        raise RecipeError(
            f"{where}: a {model['type']} tokenizer; Prunus writes GGUF from a BPE, byte-level or with byte fallback, "
            "and from a Unigram. What works: the plain folder"
        )
    metaspace = any(part["type"] == "Metaspace" for part in parts_of(tokenizer.get("pre_tokenizer")))
    if model["type"] == "Unigram":
        unigram = read_unigram(tokenizer, where)
        tokens, types = _tokens(tokenizer, size, spaced=False)
        types[unigram.unknown] = UNKNOWN
        own_scores = [float(score) for _, score in model["vocab"]][:size]
        return Vocabulary(
            "t5", "default", tokens, types, own_scores + [_NEVER] * (size - len(own_scores)),
            space_prefix=unigram.space_prefix, merge_spaces=unigram.merge_spaces, charsmap=unigram.charsmap,
            doubled=metaspace and unigram.space_prefix and not unigram.merge_spaces,
        )  # fmt: skip
    if _is_byte_level(tokenizer):
        pre = byte_level(tokenizer, where)
        tokens, types = _tokens(tokenizer, size, spaced=False)
        return Vocabulary("gpt2", pre, tokens, types, merges=[" ".join(pair) for pair in merges_of(model)])
    if not model.get("byte_fallback"):
        raise RecipeError(
            f"{where}: a BPE that is neither byte-level nor has byte fallback; llama.cpp has no equivalent"
        )
    prefix = space_prefix(tokenizer, where)
    tokens, types = _tokens(tokenizer, size, spaced=True)
    scores = _scores(model, tokens)
    return Vocabulary("llama", "default", tokens, types, scores, space_prefix=prefix, doubled=metaspace and prefix)


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE, from either of the two forms in files."""
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]  # type: ignore[misc]


def numbers_of(model: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token of a BPE or a Unigram."""
    vocab = model["vocab"]
    return dict(vocab) if isinstance(vocab, Mapping) else {text: i for i, (text, _) in enumerate(vocab)}


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    return any(part["type"] == "ByteLevel" for part in parts_of(tokenizer.get("pre_tokenizer")))


def _tokens(tokenizer: Mapping[str, Any], size: int, spaced: bool) -> tuple[list[str], list[int]]:
    """Every token and its kind, padded to `size`."""
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    unknown = tokenizer["model"].get("unk_token")
    for text, number in numbers_of(tokenizer["model"]).items():
        if number < size:
            tokens[number] = text
            types[number] = BYTE if spaced and _is_byte(text) else NORMAL
    for added in tokenizer.get("added_tokens", []):
        number = added["id"]
        if number < size:
            tokens[number] = added["content"]
            types[number] = CONTROL if added["special"] else USER_DEFINED
            if spaced and added["content"] == unknown:
                types[number] = UNKNOWN
    return tokens, types


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _scores(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Sentencepiece's scores of merges: a token that is merged earlier has a higher score."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges_of(model)):
        ranks.setdefault(left + right, rank)
    return [-float(ranks[token]) if token in ranks else _NEVER if len(token) > 1 else 0.0 for token in tokens]
