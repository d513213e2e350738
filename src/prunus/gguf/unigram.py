"""Unigram tokenizers of sentencepiece, which llama.cpp supports for T5 (`tokenizer.ggml.model` is `t5`).

Both search the most likely segmentation of a text, but prepare the text differently: llama.cpp can map characters by
sentencepiece's table, remove repeated spaces, and add a space before the text.
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
    """How a text is prepared before it is segmented.

    Attributes:
        charsmap: sentencepiece's table of characters, as in its model file; empty for none.
        merge_spaces: Whether repeated spaces are merged, and spaces at both ends removed.
        space_prefix: Whether a space is added before a text.
        unknown: The id of the unknown token.
    """

    charsmap: bytes
    merge_spaces: bool
    space_prefix: bool
    unknown: int


def read_unigram(tokenizer: Mapping[str, Any], where: str) -> Unigram:
    """A Unigram tokenizer in llama.cpp's terms.

    Args:
        tokenizer: The contents of tokenizer.json.
        where: The file, for messages.

    Raises:
        RecipeError: llama.cpp has no equivalent; names what would work.
    """
    model = tokenizer["model"]
    if model.get("byte_fallback"):
        raise RecipeError(
            f"{where}: a Unigram with byte fallback, which llama.cpp does not support: it would use the unknown token. "
            "What works: the plain folder"
        )
    if model.get("unk_id") is None:
        raise RecipeError(f"{where}: a Unigram without an unknown token (unk_id), which llama.cpp needs")
    steps = parts_of(tokenizer.get("normalizer"), "normalizers")
    charsmap = b""
    if steps and steps[0]["type"] == "Precompiled":
        charsmap = base64.b64decode(steps[0]["precompiled_charsmap"] or "")
        steps = steps[1:]
    pieces = parts_of(tokenizer.get("pre_tokenizer"))
    spaces = _spaces(steps, pieces, bool(charsmap))
    if spaces is None:
        shown = [step for step in steps if step["type"] != "Precompiled"]
        raise RecipeError(
            f"{where}: it prepares a text differently from llama.cpp's Unigram: normalizer "
            f"{json.dumps(shown)[:200]}, pre-tokenizer {json.dumps(pieces)[:200]}. What works: the plain folder"
        )
    if any(piece.get("split", True) for piece in pieces if piece["type"] == "Metaspace"):
        _check_split([text for text, _ in model["vocab"]], where)
    return Unigram(charsmap, *spaces, int(model["unk_id"]))


def _spaces(steps: list[Mapping[str, Any]], pieces: list[Mapping[str, Any]], mapped: bool) -> tuple[bool, bool] | None:
    """Whether spaces are merged, and whether one is added before the text; None if llama.cpp has no equivalent.

    With a table of characters, only both together are known to give the same result: transformers maps clusters of
    characters, llama.cpp the longest match, so that a carriage return with line feed becomes one space or two.
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
    """Check a tokenizer that splits words first, which llama.cpp does not: equivalent if no token contains a space.

    Raises:
        RecipeError: A token does.
    """
    over = next((text for text in texts if SPACE in text[1:]), None)
    if over is not None:
        raise RecipeError(
            f"{where}: its pre-tokenizer splits words, but the token {over!r} contains a space: only llama.cpp would "
            "use it. What works: the plain folder"
        )
