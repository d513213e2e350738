"""The tokenizer of a GGUF file as a tokenizer.json: the inverse of gguf/vocabulary.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from prunus.errors import ModelError
from prunus.gguf.special import Special
from prunus.gguf.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from prunus.llamacpp.reading import GgufFile
from prunus.steps.unpack.bytelevel import byte_level_of
from prunus.steps.unpack.keys import listed
from prunus.steps.unpack.models import byte_level_model, sentencepiece_model, unigram_model
from prunus.steps.unpack.special import special_of

_PREFIX = "tokenizer.ggml."
_MODELS = ("gpt2", "llama", "t5")
_STRIPS_TOO = (
    "phi-3",
    "phi3",
)  # llama.cpp recognises Phi-3 by the file's name; its special tokens strip spaces after them
_NOT_STRIPPING = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class Read:
    """A tokenizer.

    Attributes:
        model: llama.cpp's kind of tokenizer.
        pre: Its pre-tokenizer, by export's name.
        tokens: Every token, by id, without padding rows of the embedding.
        json: The contents of tokenizer.json.
        special: Special tokens, end tokens and templates.
    """

    model: str
    pre: str
    tokens: list[str]
    json: dict[str, Any]
    special: Special


def read_tokenizer(file: GgufFile, size: int) -> Read:
    """Read the tokenizer of a file.

    Args:
        file: The file.
        size: Rows of the embedding.

    Raises:
        ModelError: There is none, it is damaged, or it has no equivalent in transformers.
    """
    keys, where = file.keys, str(file.path)
    model = keys.get(f"{_PREFIX}model")
    if model is None or model in ("none", "no_vocab") or f"{_PREFIX}tokens" not in keys:
        raise ModelError(f"{where}: has no tokenizer ({_PREFIX}model, {_PREFIX}tokens), which a folder needs")
    if model not in _MODELS:
        raise ModelError(f"{where}: {_PREFIX}model is {model!r:.40}; allowed: {', '.join(_MODELS)}")
    tokens, types = _tokens(keys, size, where)
    pre = byte_level_of(keys.get(f"{_PREFIX}pre"), where) if model == "gpt2" else None
    special = special_of(keys, tokens, types, pre is not None and pre.add_bos, where)
    while types and types[-1] == UNUSED and tokens[-1] == f"[PAD{len(tokens) - 1}]":  # padding rows
        tokens, types = tokens[:-1], types[:-1]
    if pre is not None:
        made = byte_level_model(keys, tokens, pre, where)
    elif model == "llama":
        made = sentencepiece_model(keys, tokens, types, special, where)
    else:
        made = unigram_model(keys, tokens, types, special, where)
    name = str(keys.get("general.name", "")).lower()
    strips = any(part in name for part in _STRIPS_TOO)
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types, strips),
        "post_processor": _around(tokens, special),
        **made,
    }
    return Read(str(model), pre.name if pre is not None else "default", tokens, whole, special)


def _tokens(keys: dict[str, Any], size: int, where: str) -> tuple[list[str], list[int]]:
    texts = listed(keys, f"{_PREFIX}tokens", str, where) or []
    tokens = [text or f"[EMPTY_{number}]" for number, text in enumerate(texts)]  # as in llama.cpp
    types = listed(keys, f"{_PREFIX}token_type", int, where) or [NORMAL] * len(tokens)
    if len(tokens) > size:
        raise ModelError(f"{where}: {len(tokens)} tokens, but the embedding has only {size} rows")
    scores = listed(keys, f"{_PREFIX}scores", (int, float), where)
    for name, values in (("token_type", types), ("scores", scores)):
        if values is not None and len(values) != len(tokens):
            raise ModelError(f"{where}: {_PREFIX}{name} has {len(values)} values for {len(tokens)} tokens")
    if len(set(tokens)) < len(tokens):
        twice = next(text for text, count in Counter(tokens).items() if count > 1)
        raise ModelError(f"{where}: the token {twice!r:.40} is repeated in {_PREFIX}tokens")
    return tokens, types


def _added(tokens: list[str], types: list[int], strips: bool) -> list[dict[str, Any]]:
    """Tokens that are matched in a text before it is split: special and user-defined ones."""
    return [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": strips and text not in _NOT_STRIPPING,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for number, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]


def _around(tokens: list[str], special: Special) -> dict[str, Any] | None:
    """The post-processor, which adds tokens before and after a text; None if it adds none."""
    before = [special.numbers["bos"]] if special.add_bos else []
    after = [special.numbers["eos"]] if special.add_eos else []
    if not before and not after:
        return None

    def single(kind: str, type_id: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": kind, "type_id": type_id}}
        marks = [[{"SpecialToken": {"id": tokens[i], "type_id": type_id}} for i in ids] for ids in (before, after)]
        return [*marks[0], text, *marks[1]]

    return {
        "type": "TemplateProcessing",
        "single": single("A", 0),
        "pair": [*single("A", 0), *single("B", 1)],
        "special_tokens": {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in {*before, *after}},
    }
