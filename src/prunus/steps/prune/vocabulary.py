"""A smaller vocabulary: which tokens stay, and the tokenizer that knows them alone.

Everything is done on tokenizer.json, whose model is BPE (byte-level, or with byte fallback as sentencepiece has it) or
Unigram. A token of a BPE is reached by merging two others, so with it its parts stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import ModelError, ShapeError
from prunus.models.texts import read_model_json, read_tokenizer_json
from prunus.steps.prune.ids import renumber

TOKENIZER = "tokenizer.json"
_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"  # sentencepiece's; its decoder turns no other way of writing it into a space


def choose_tokens(tokenizer: Mapping[str, Any], counts: np.ndarray, always: set[int], count: int) -> np.ndarray:
    """The ids that stay, ascending: special and byte tokens, then the most frequent with the parts they are merged of.

    Args:
        tokenizer: The contents of tokenizer.json.
        counts: How often the corpus has each id, [vocab_size].
        always: Ids that stay whatever their count, such as those that config.json names.
        count: How many stay.

    Raises:
        ShapeError: The tokens that must stay are more than `count`.
    """
    vocab = vocab_of(tokenizer)
    parts = _parts(tokenizer, vocab)
    kept = {i for i in always | _essential(tokenizer, vocab) if i < len(counts)}
    if len(kept) > count:
        raise ShapeError(f"prune.vocab_size: {count} are fewer than the {len(kept)} special and byte tokens")
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
    """tokenizer.json for the tokens that stay; token `kept[i]` becomes token `i`."""
    new = {int(old): i for i, old in enumerate(kept)}
    result = json.loads(json.dumps(tokenizer))
    model = result["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in sorted(new) if old < len(model["vocab"])]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
        model["merges"] = [merge for merge in model["merges"] if _stays(*_merge(merge), model["vocab"])]
    result["added_tokens"] = [{**t, "id": new[t["id"]]} for t in result["added_tokens"] if t["id"] in new]
    _renumber_template(result.get("post_processor"), new)
    return result


def write_tokenizer(teacher: Path, out: Path, kept: np.ndarray) -> None:
    """Write the cut tokenizer to `out`, in place of the files that were copied there.

    Files of the slow tokenizers (tokenizer.model, vocab.json, merges.txt) would contradict it and are removed.
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
        ModelError: There is none, it is damaged, or its model is of a kind that cannot be cut.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        raise ModelError(f"{folder}: prune.vocab_size needs a {TOKENIZER}; save the tokenizer once as a fast one")
    tokenizer = read_tokenizer_json(file)
    kind = tokenizer["model"]["type"]
    if kind not in ("BPE", "Unigram"):
        raise ModelError(f"{file}: a {kind} vocabulary cannot be cut; BPE and Unigram can")
    return tokenizer


def vocab_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Every token and its id, added ones too."""
    vocab = tokenizer["model"]["vocab"]
    plain = {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return plain | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def _essential(tokenizer: Mapping[str, Any], vocab: Mapping[str, int]) -> set[int]:
    """Added and unknown tokens, and those for single bytes, without which some text could not be written."""
    essential = {token["id"] for token in tokenizer["added_tokens"]}
    essential |= {i for token, i in vocab.items() if _FALLBACK.fullmatch(token) or token == _SPACE}
    model = tokenizer["model"]
    if model.get("unk_token") in vocab:
        essential.add(vocab[model["unk_token"]])
    if isinstance(model.get("unk_id"), int):
        essential.add(model["unk_id"])
    if '"ByteLevel"' in json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")]):
        essential |= {vocab[byte] for byte in _byte_alphabet() if byte in vocab}
    return essential


def _byte_alphabet() -> list[str]:
    """The 256 characters that a byte-level tokenizer writes bytes as (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _parts(tokenizer: Mapping[str, Any], vocab: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """For each merged token the two that it is first merged from."""
    parts: dict[int, tuple[int, int]] = {}
    for merge in tokenizer["model"].get("merges", []):
        left, right = _merge(merge)
        if _stays(left, right, vocab):
            parts.setdefault(vocab[left + right], (vocab[left], vocab[right]))
    return parts


def _stays(left: str, right: str, vocab: Mapping[str, int]) -> bool:
    """Whether a merge is of tokens that are all there."""
    return left in vocab and right in vocab and left + right in vocab


def _merge(merge: Any) -> tuple[str, str]:
    """The two sides of a merge, in either of the forms that tokenizer.json has had."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _with_parts(token: int, parts: Mapping[int, tuple[int, int]], kept: set[int]) -> set[int]:
    """`token` and all that it is merged from, less what is kept already."""
    needed: set[int] = set()
    waiting = [token]
    while waiting:
        current = waiting.pop()
        if current not in kept and current not in needed:
            needed.add(current)
            waiting.extend(parts.get(current, ()))
    return needed


def _renumber_template(processor: Any, new: Mapping[int, int]) -> None:
    """Renumber the special tokens of a TemplateProcessing, wherever in a post-processor it stands."""
    if isinstance(processor, list):
        for item in processor:
            _renumber_template(item, new)
    elif isinstance(processor, dict):
        if processor.get("type") == "TemplateProcessing":
            for token in processor["special_tokens"].values():
                token["ids"] = [new[i] for i in token["ids"]]
        _renumber_template(processor.get("processors"), new)
