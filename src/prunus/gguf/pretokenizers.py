"""Which of llama.cpp's pre-tokenizers splits text like a given tokenizer.json: recognised by its structure alone.

A wrong one would still run and give different tokens for half of all texts, so unknown structures are refused. The
regular expressions are copied from the tokenizers' files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prunus.errors import RecipeError

_ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_ENDS}|{_WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
QWEN2 = rf"{_ENDS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
GPT4O = rf"{_CASED[0]}{_ENDS}?|{_CASED[1]}{_ENDS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"

BYTE_LEVEL: dict[tuple[Any, ...], str] = {
    (("bytes", True),): "gpt-2",
    (("split", GPT2), ("bytes", False)): "gpt-2",
    (("digits", True), ("bytes", True)): "smollm",
    (("split", LLAMA3), ("bytes", False)): "llama-bpe",
    (("split", QWEN2), ("bytes", False)): "qwen2",
    (("split", TEKKEN), ("bytes", False)): "tekken",
    (("split", GPT4O), ("bytes", False)): "gpt-4o",
}
"""llama.cpp's name for each chain of pieces: splits by an expression, digits one by one, and bytes as characters, with
GPT-2's expression or without."""

_WHOLE_WORDS_FIRST = {"llama-bpe", "tekken"}  # a word that is a token is not split, whatever its merges
_MERGED_ONLY = {"llama-bpe": "dbrx"}  # the same split, but merges alone decide

APPROXIMATE = {"tekken", "gpt-4o"}
"""Pre-tokenizers whose letter classes lack combining marks in llama.cpp: it splits Hindi or Thai words differently."""

SPACE = "▁"


def byte_level(tokenizer: Mapping[str, Any], where: str) -> str:
    """llama.cpp's pre-tokenizer for a byte-level BPE.

    Args:
        tokenizer: The contents of tokenizer.json.
        where: The file, for messages.

    Raises:
        RecipeError: Its structure is not known to give the same tokens in llama.cpp.
    """
    kind = (tokenizer.get("normalizer") or {}).get("type")
    if kind not in (None, "NFC"):
        raise RecipeError(f"{where}: its normalizer is {kind}; llama.cpp supports none with a byte-level BPE")
    chain = tuple(_piece(part) for part in parts_of(tokenizer.get("pre_tokenizer")))
    name = BYTE_LEVEL.get(chain)
    if name is None:
        raise RecipeError(
            f"{where}: no known equivalent in llama.cpp of its pre-tokenizer: "
            f"{json.dumps(tokenizer.get('pre_tokenizer'))[:300]}; known are those of "
            f"{', '.join(sorted(set(BYTE_LEVEL.values())))}. A guess could silently give other tokens. What works: "
            "the plain folder"
        )
    if name in _WHOLE_WORDS_FIRST and not tokenizer["model"].get("ignore_merges"):
        name = _MERGED_ONLY.get(name, name)
    return name


def space_prefix(tokenizer: Mapping[str, Any], where: str) -> bool:
    """Whether a sentencepiece-like BPE adds a space before a text.

    Raises:
        RecipeError: It changes the text in other ways than that and replacing spaces by ▁.
    """
    normalizers = [_plain(part) for part in parts_of(tokenizer.get("normalizer"), "normalizers")]
    pieces = [_plain(part) for part in parts_of(tokenizer.get("pre_tokenizer"))]
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepended = {"type": "Prepend", "prepend": SPACE}
    apart = [{"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}]
    if normalizers == [prepended, replaced] and not pieces:
        return True
    if normalizers == [replaced] and pieces in ([], apart):
        return False
    if not normalizers and len(pieces) == 1 and pieces[0]["type"] == "Metaspace":
        spaced = pieces[0]
        if spaced.get("replacement") == SPACE and not spaced.get("split", True):
            return str(spaced.get("prepend_scheme", "always")) != "never"
    raise RecipeError(
        f"{where}: it changes text before the merges differently from llama.cpp's sentencepiece: normalizer "
        f"{json.dumps(normalizers)[:200]}, pre-tokenizer {json.dumps(pieces)[:200]}. What works: the plain folder"
    )


def parts_of(value: Mapping[str, Any] | None, key: str = "pretokenizers") -> list[Mapping[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, in order; `key` is the field of a sequence that lists them."""
    if value is None:
        return []
    return list(value[key]) if value.get("type") == "Sequence" else [value]


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "trim_offsets"}


def _piece(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """One piece of a chain in the form of `BYTE_LEVEL`; unknown pieces get a form that matches no chain."""
    kind = part.get("type")
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return ("bytes", bool(part.get("use_regex", True)))
    if kind == "Digits":
        return ("digits", bool(part.get("individual_digits")))
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return ("split", part["pattern"].get("Regex"))
    return ("unknown", json.dumps(part))
