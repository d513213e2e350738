"""The model, normalizer, pre-tokenizer and decoder of a tokenizer.json, for each of llama.cpp's kinds of tokenizers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from prunus.errors import ModelError
from prunus.gguf.pretokenizers import SPACE
from prunus.gguf.special import Special
from prunus.gguf.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN
from prunus.steps.unpack.bytelevel import ByteLevel
from prunus.steps.unpack.keys import listed
from prunus.steps.unpack.merges import merges_of_scores

_PREFIX = "tokenizer.ggml."
_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPENDED = {"type": "Prepend", "prepend": SPACE}


def byte_level_model(keys: dict[str, Any], tokens: list[str], pre: ByteLevel, where: str) -> dict[str, Any]:
    """A byte-level BPE.

    Args:
        keys: The file's keys.
        tokens: Every token, by id.
        pre: The pre-tokenizer.
        where: The file, for messages.

    Raises:
        ModelError: There are no merges, or a merge has unknown tokens.
    """
    merges = listed(keys, f"{_PREFIX}merges", str, where)
    if merges is None:
        raise ModelError(f"{where}: a byte-level BPE without merges ({_PREFIX}merges)")
    pairs, known = [], set(tokens)
    for merge in merges:
        head, _, right = merge[1:].partition(" ")  # a token may begin with a space character
        left = merge[:1] + head
        if not {left, right, left + right} <= known:
            raise ModelError(f"{where}: the merge {merge!r:.60} has tokens that are not in the vocabulary")
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


def sentencepiece_model(
    keys: dict[str, Any], tokens: list[str], types: list[int], special: Special, where: str
) -> dict[str, Any]:
    """A BPE like sentencepiece's, with byte fallback for characters without a token.

    Args:
        keys: The file's keys.
        tokens: Every token, by id.
        types: The kind of each token.
        special: Special tokens.
        where: The file, for messages.

    Raises:
        ModelError: There are no scores, or some bytes have no token.
    """
    scores = listed(keys, f"{_PREFIX}scores", (int, float), where)
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


def unigram_model(
    keys: dict[str, Any], tokens: list[str], types: list[int], special: Special, where: str
) -> dict[str, Any]:
    """A Unigram model: the most likely segmentation of a text.

    Args:
        keys: The file's keys.
        tokens: Every token, by id.
        types: The kind of each token.
        special: Special tokens.
        where: The file, for messages.

    Raises:
        ModelError: There are no scores, or the text's preparation has no known equivalent in transformers.
    """
    scores = listed(keys, f"{_PREFIX}scores", (int, float), where)
    if scores is None or "unknown" not in special.numbers:
        raise ModelError(f"{where}: a Unigram without scores, or without an unknown token")
    merged = bool(keys.get(f"{_PREFIX}remove_extra_whitespaces", False))
    prefix = bool(keys.get(f"{_PREFIX}add_space_prefix", False))
    table_bytes = listed(keys, f"{_PREFIX}precompiled_charsmap", int, where) or []
    charsmap = bytes(value & 0xFF for value in table_bytes)
    if (merged, prefix) != (True, True) and (charsmap or merged):
        raise ModelError(
            f"{where}: a Unigram with {_PREFIX}remove_extra_whitespaces {merged}, add_space_prefix {prefix} and "
            f"{len(charsmap)} bytes of a table of characters; there is no known equivalent in transformers"
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
