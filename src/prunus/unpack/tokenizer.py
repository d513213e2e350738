"""The tokenizer of a GGUF file as a tokenizer.json: export/vocabulary.py, inverted."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import ModelError
from prunus.export.pretokenizers import SPACE
from prunus.export.special import Special
from prunus.export.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from prunus.llamacpp.reading import GgufFile
from prunus.unpack.bytelevel import ByteLevel, byte_level_of
from prunus.unpack.merges import merges_of_scores
from prunus.unpack.special import special_of

_PREFIX = "tokenizer.ggml."
_MODELS = ("gpt2", "llama", "t5")
_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPENDED = {"type": "Prepend", "prepend": SPACE}
_STRIPS_TOO = "phi-3", "phi3"  # llama.cpp knows Phi-3 by its file's name: its special tokens take spaces along
_BUT_FOR = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class Read:
    """A tokenizer.

    Attributes:
        model: llama.cpp's kind of it.
        pre: Its pre-tokenizer, by export's name.
        tokens: Every token by its number, without rows of the embedding that no text reaches.
        json: The contents of tokenizer.json.
        special: Special tokens, ends and templates.
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
        ModelError: There is none, it is damaged, or it is of a kind that transformers has no equal of.
    """
    keys, where = file.keys, str(file.path)
    model = keys.get(f"{_PREFIX}model")
    if model is None or model in ("none", "no_vocab") or f"{_PREFIX}tokens" not in keys:
        raise ModelError(f"{where}: it has no tokenizer ({_PREFIX}model, {_PREFIX}tokens), and a folder needs one")
    if model not in _MODELS:
        raise ModelError(f"{where}: {_PREFIX}model is {model!r:.40}; Prunus reads {', '.join(_MODELS)}")
    tokens, types = _tokens(keys, size, where)
    pre = byte_level_of(keys.get(f"{_PREFIX}pre"), where) if model == "gpt2" else None
    special = special_of(keys, tokens, types, pre is not None and pre.add_bos, where)
    while types and types[-1] == UNUSED and tokens[-1] == f"[PAD{len(tokens) - 1}]":  # rows that are no token's
        tokens, types = tokens[:-1], types[:-1]
    if pre is not None:
        made = _byte_level(keys, tokens, pre, where)
    elif model == "llama":
        made = _sentencepiece(keys, tokens, types, special, where)
    else:
        made = _unigram(keys, tokens, types, special, where)
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
    tokens = [text or f"[EMPTY_{number}]" for number, text in enumerate(keys[f"{_PREFIX}tokens"])]  # as llama.cpp
    types = keys.get(f"{_PREFIX}token_type", [NORMAL] * len(tokens))
    if len(tokens) > size:
        raise ModelError(f"{where}: {len(tokens)} tokens, and the embedding has {size} rows")
    for name, values in (("token_type", types), ("scores", keys.get(f"{_PREFIX}scores", types))):
        if len(values) != len(tokens):
            raise ModelError(f"{where}: {_PREFIX}{name} has {len(values)} values for {len(tokens)} tokens")
    if len(set(tokens)) < len(tokens):
        twice = next(text for number, text in enumerate(tokens) if text in tokens[:number])
        raise ModelError(f"{where}: the token {twice!r:.40} stands twice among {_PREFIX}tokens")
    return tokens, types


def _byte_level(keys: dict[str, Any], tokens: list[str], pre: ByteLevel, where: str) -> dict[str, Any]:
    merges = keys.get(f"{_PREFIX}merges")
    if merges is None:
        raise ModelError(f"{where}: a byte-level BPE without merges ({_PREFIX}merges)")
    pairs, known = [], set(tokens)
    for merge in merges:
        head, _, right = merge[1:].partition(" ")  # a token may begin with a space, where it stands for itself
        left = merge[:1] + head
        if not {left, right, left + right} <= known:
            raise ModelError(f"{where}: the merge {merge!r:.60} is of tokens that are not there")
        pairs.append([left, right])
    return {
        "normalizer": {"type": "NFC"} if pre.composed else None,
        "pre_tokenizer": pre.pieces,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(tokens, pairs, ignore_merges=pre.whole_words),
    }


def _bpe(tokens: list[str], merges: Sequence[Sequence[str]], **options: Any) -> dict[str, Any]:
    plain = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
    }  # fmt: skip
    vocab = {text: number for number, text in enumerate(tokens)}
    return {**plain, **options, "vocab": vocab, "merges": [list(pair) for pair in merges]}


def _sentencepiece(
    keys: dict[str, Any], tokens: list[str], types: list[int], special: Special, where: str
) -> dict[str, Any]:
    scores = keys.get(f"{_PREFIX}scores")
    if scores is None:
        raise ModelError(f"{where}: a sentencepiece-like BPE without scores ({_PREFIX}scores)")
    if types.count(BYTE) != 256:
        raise ModelError(f"{where}: a BPE with {types.count(BYTE)} tokens for single bytes; expected all 256")
    usable = [number for number, kind in enumerate(types) if kind not in (CONTROL, UNKNOWN, BYTE)]
    prefix = bool(keys.get(f"{_PREFIX}add_space_prefix", True))
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    unknown = special.numbers.get("unknown")
    return {
        "normalizer": {"type": "Sequence", "normalizers": [_PREPENDED, _REPLACED]} if prefix else _REPLACED,
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [*steps, {"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else steps,
        },
        "model": _bpe(
            tokens,
            merges_of_scores(tokens, scores, usable),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _unigram(keys: dict[str, Any], tokens: list[str], types: list[int], special: Special, where: str) -> dict[str, Any]:
    scores = keys.get(f"{_PREFIX}scores")
    if scores is None or "unknown" not in special.numbers:
        raise ModelError(f"{where}: a Unigram without scores, or without a token for what is unknown")
    merged = bool(keys.get(f"{_PREFIX}remove_extra_whitespaces", False))
    prefix = bool(keys.get(f"{_PREFIX}add_space_prefix", False))
    charsmap = bytes(value & 0xFF for value in keys.get(f"{_PREFIX}precompiled_charsmap", []))
    if (merged, prefix) != (True, True) and (charsmap or merged):
        raise ModelError(
            f"{where}: a Unigram with {_PREFIX}remove_extra_whitespaces {merged}, add_space_prefix {prefix} and "
            f"{len(charsmap)} bytes of a table of characters; transformers has no equal of it that Prunus knows"
        )
    least = min((score for score, kind in zip(scores, types, strict=False) if kind == NORMAL), default=0.0)
    vocab = [[text, max(score, least)] for text, score in zip(tokens, scores, strict=False)]
    spaced = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": False}
    table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    stripped = [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    plain = [_PREPENDED, _REPLACED] if prefix else [_REPLACED]
    steps = [*([table] if charsmap else []), *stripped] if merged else plain
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": spaced if merged else None,
        "decoder": spaced,
        "model": {"type": "Unigram", "unk_id": special.numbers["unknown"], "vocab": vocab, "byte_fallback": False},
    }


def _added(tokens: list[str], types: list[int], strips: bool) -> list[dict[str, Any]]:
    """Tokens that are looked for in a text before it is cut: those that are special, and those of users."""
    return [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": strips and text not in _BUT_FOR,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for number, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]


def _around(tokens: list[str], special: Special) -> dict[str, Any] | None:
    """What is put before a text and behind it."""
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
