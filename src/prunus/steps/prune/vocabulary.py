"""A smaller vocabulary: chooses the tokens to keep, and cuts the tokenizer.

Works on tokenizer.json with a BPE model (byte-level, or with byte fallback as in sentencepiece) or a Unigram model. BPE
builds a token by merging two others, so a kept token's parts are kept as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError, ShapeError
from prunus.models.ids import renumber
from prunus.models.texts import read_model_json, read_tokenizer_json

TOKENIZER = "tokenizer.json"
_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"  # sentencepiece's; its decoder writes a space for this token only


def choose_tokens(tokenizer: Mapping[str, Any], counts: np.ndarray, required: set[int], count: int) -> np.ndarray:
    """The ids to keep, ascending: special and byte tokens, then the most frequent tokens with the parts they merge.

    Args:
        tokenizer: The contents of tokenizer.json.
        counts: Frequency of each id in the corpus, [vocab_size].
        required: Ids to keep whatever their frequency, such as those that config.json names.
        count: How many to keep.

    Raises:
        ShapeError: More than `count` tokens must be kept.
    """
    vocab = vocab_of(tokenizer)
    parts = _parts(tokenizer, vocab)
    kept = {i for i in required | _special_and_bytes(tokenizer, vocab) if i < len(counts)}
    if len(kept) > count:
        raise ShapeError(
            f"prune.vocab_size: {count} is less than the {len(kept)} special and byte tokens, which are always kept"
        )
    known = set(vocab.values())
    order = sorted(range(len(counts)), key=lambda i: (i not in known, -counts[i], i))
    for token in order:
        if len(kept) == count:
            break
        needed = _with_parts(token, parts, kept)
        if len(kept) + len(needed) <= count:
            kept |= needed
    return np.array(sorted(kept), dtype=np.int64)


def cut_tokenizer(tokenizer: Mapping[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The contents of tokenizer.json with the kept tokens only; token `kept[i]` becomes token `i`."""
    new = {int(old): i for i, old in enumerate(kept)}
    result = json.loads(json.dumps(tokenizer))
    model = result["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in sorted(new) if old < len(model["vocab"])]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
        model["merges"] = [merge for merge in model["merges"] if _has_merge(*_merge(merge), model["vocab"])]
    result["added_tokens"] = [{**t, "id": new[t["id"]]} for t in result["added_tokens"] if t["id"] in new]
    _renumber_template(result.get("post_processor"), new)
    return result


def write_tokenizer(teacher: Path, out: Path, kept: np.ndarray) -> None:
    """Write the cut tokenizer to `out`, in place of the teacher's files that were copied there.

    Files of slow tokenizers (tokenizer.model, vocab.json, merges.txt) contain the full vocabulary and are removed.
    """
    cut = json.dumps(cut_tokenizer(read_tokenizer(teacher), kept), ensure_ascii=False)
    (out / TOKENIZER).write_text(cut, encoding="utf-8")
    for stale in (*out.glob("*.model"), *out.glob("vocab.*"), *out.glob("merges.txt"), *out.glob("added_tokens.json")):
        stale.unlink()
    new = {int(old): i for i, old in enumerate(kept)}
    for name in ("tokenizer_config.json", "generation_config.json"):
        if (out / name).is_file():
            text = json.dumps(renumber(read_model_json(out / name), new, str(teacher / name)), indent=2)
            (out / name).write_text(text + "\n", encoding="utf-8")


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The contents of tokenizer.json.

    Raises:
        ModelError: The file is missing or damaged, or its model is neither BPE nor Unigram.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        raise ModelError(f"{folder}: prune.vocab_size needs a {TOKENIZER}; save the tokenizer as a fast tokenizer")
    tokenizer = read_tokenizer_json(file)
    kind = tokenizer["model"]["type"]
    if kind not in ("BPE", "Unigram"):
        raise ModelError(f"{file}: a {kind} vocabulary cannot be cut; allowed: BPE, Unigram")
    return tokenizer


def vocab_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token, including added tokens."""
    vocab = tokenizer["model"]["vocab"]
    plain = {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return plain | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def _special_and_bytes(tokenizer: Mapping[str, Any], vocab: Mapping[str, int]) -> set[int]:
    """Ids of added tokens, the unknown token, and the tokens of single bytes, so that any text can be encoded."""
    ids = {token["id"] for token in tokenizer["added_tokens"]}
    ids |= {i for token, i in vocab.items() if _FALLBACK.fullmatch(token) or token == _SPACE}
    model = tokenizer["model"]
    if model.get("unk_token") in vocab:
        ids.add(vocab[model["unk_token"]])
    if isinstance(model.get("unk_id"), int):
        ids.add(model["unk_id"])
    if '"ByteLevel"' in json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")]):
        ids |= {vocab[byte] for byte in _byte_alphabet() if byte in vocab}
    return ids


def _byte_alphabet() -> list[str]:
    """The 256 characters that a byte-level tokenizer writes bytes as (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _parts(tokenizer: Mapping[str, Any], vocab: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """The two parts of each merged token, by its first merge."""
    parts: dict[int, tuple[int, int]] = {}
    for merge in tokenizer["model"].get("merges", []):
        left, right = _merge(merge)
        if _has_merge(left, right, vocab):
            parts.setdefault(vocab[left + right], (vocab[left], vocab[right]))
    return parts


def _has_merge(left: str, right: str, vocab: Mapping[str, int]) -> bool:
    """Whether both parts and the result of a merge are in the vocabulary."""
    return left in vocab and right in vocab and left + right in vocab


def _merge(merge: Any) -> tuple[str, str]:
    """The two parts of a merge, in either form that tokenizer.json has: "a b" or ["a", "b"]."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _with_parts(token: int, parts: Mapping[int, tuple[int, int]], kept: set[int]) -> set[int]:
    """`token` and all parts that it is merged from, without those already kept."""
    needed: set[int] = set()
    stack = [token]
    while stack:
        current = stack.pop()
        if current not in kept and current not in needed:
            needed.add(current)
            stack.extend(parts.get(current, ()))
    return needed


def _renumber_template(processor: Any, new: Mapping[int, int]) -> None:
    """Renumber the special tokens of TemplateProcessing, at any depth of a post-processor."""
    if isinstance(processor, list):
        for item in processor:
            _renumber_template(item, new)
    elif isinstance(processor, dict):
        if processor.get("type") == "TemplateProcessing":
            for token in processor["special_tokens"].values():
                token["ids"] = [new[i] for i in token["ids"]]
        _renumber_template(processor.get("processors"), new)
