"""Unigram tokenizers, as sentencepiece trains them: what llama.cpp does for T5's (`tokenizer.ggml.model` is `t5`).

Both look for the likeliest cut of a text. What is done to the text before differs: llama.cpp maps characters by
sentencepiece's table, drops spaces that are one too many, and puts one before the text, each if it is told to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunus.errors import RecipeError
from prunus.gguf.pretokenizers import SPACE, parts_of

_PREPENDED = {"type": "Prepend", "prepend": SPACE}
_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


@dataclass(frozen=True)
class Unigram:
    """What is done to a text before the likeliest cut is looked for.

    Attributes:
        charsmap: sentencepiece's table of characters, as its model file has it; empty for none.
        merge_spaces: Whether of several spaces one stays, and none at the ends.
        space_prefix: Whether a space is put before a text.
        unknown: The number of the token for what no token has.
    """

    charsmap: bytes
    merge_spaces: bool
    space_prefix: bool
    unknown: int


def read_unigram(tokenizer: Mapping[str, Any], where: str) -> Unigram:
    """How a Unigram tokenizer is told to llama.cpp.

    Args:
        tokenizer: The contents of tokenizer.json.
        where: The file, for messages.

    Raises:
        RecipeError: llama.cpp has no equal of it, and what would work.
    """
    model = tokenizer["model"]
    if model.get("byte_fallback"):
        raise RecipeError(
            f"{where}: a Unigram that falls back to bytes; llama.cpp has no such, and writes its unknown token for "
            "characters that have none. What works: the plain folder"
        )
    if model.get("unk_id") is None:
        raise RecipeError(f"{where}: a Unigram without a token for what is unknown (unk_id), which llama.cpp needs")
    steps = parts_of(tokenizer.get("normalizer"), "normalizers")
    charsmap = b""
    if steps and steps[0]["type"] == "Precompiled":
        charsmap = base64.b64decode(steps[0]["precompiled_charsmap"] or "")
        steps = steps[1:]
    pieces = parts_of(tokenizer.get("pre_tokenizer"))
    spaces = _spaces(steps, pieces, bool(charsmap))
    if spaces is None:
        told = [step for step in steps if step["type"] != "Precompiled"]
        raise RecipeError(
            f"{where}: what it does to a text before it is cut is not what llama.cpp does for a Unigram: normalizer "
            f"{json.dumps(told)[:200]}, pre-tokenizer {json.dumps(pieces)[:200]}. What works: the plain folder"
        )
    if any(piece.get("split", True) for piece in pieces if piece["type"] == "Metaspace"):
        _check_split([text for text, _ in model["vocab"]], where)
    return Unigram(charsmap, *spaces, int(model["unk_id"]))


def _spaces(steps: list[Mapping[str, Any]], pieces: list[Mapping[str, Any]], mapped: bool) -> tuple[bool, bool] | None:
    """Whether spaces are merged, and whether one is put before; None for what llama.cpp cannot do.

    With a table of characters both are, or neither is known to be the same: transformers maps clusters of characters,
    llama.cpp the longest match, and a carriage return with its line feed comes out as one space or as two.
    """
    if mapped:
        words = [piece["type"] for piece in pieces[:-1]] == ["WhitespaceSplit"] and not steps
        stripped = len(pieces) == 1 and len(steps) == 2 and _strips(steps[0]) and _merges(steps[1])
        prefix = _is_metaspace(pieces[-1:]) and pieces[-1].get("prepend_scheme", "always") != "never"
        return (True, True) if prefix and (words or stripped) else None
    if not pieces and steps[-1:] == [_REPLACED] and steps[:-1] in ([], [_PREPENDED]):
        return False, len(steps) > 1
    if not steps and len(pieces) == 1 and _is_metaspace(pieces):
        return False, pieces[0].get("prepend_scheme", "always") != "never"
    return None


def _is_metaspace(pieces: list[Mapping[str, Any]]) -> bool:
    return bool(pieces) and pieces[0]["type"] == "Metaspace" and pieces[0].get("replacement") == SPACE


def _strips(step: Mapping[str, Any]) -> bool:
    return step["type"] == "Strip" and bool(step.get("strip_right"))


def _merges(step: Mapping[str, Any]) -> bool:
    return step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"} and step["content"] in (" ", SPACE)


def _check_split(texts: list[str], where: str) -> None:
    """Words are cut apart first there, and not in llama.cpp: the same as long as no token runs over a space.

    Raises:
        RecipeError: One does.
    """
    over = next((text for text in texts if SPACE in text[1:]), None)
    if over is not None:
        raise RecipeError(
            f"{where}: its pre-tokenizer cuts words apart, and the token {over!r} runs over a space: llama.cpp would "
            "use it. What works: the plain folder"
        )
