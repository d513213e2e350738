"""A tokenizer.json as llama.cpp keeps it: tokens with their kinds, merges or scores, and which ones are special."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError
from prunus.export.pretokenizers import byte_level, parts_of, space_prefix
from prunus.export.unigram import read_unigram

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as the format numbers them."""

_NEVER = -1e9  # the score of a token that no merge makes


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, ready to be written.

    Attributes:
        model: `gpt2` for a byte-level BPE, `llama` for one like sentencepiece's, `t5` for a Unigram.
        pre: The pre-tokenizer.
        tokens: Every token by its number.
        types: The kind of each.
        scores: What merges are chosen by, the highest first, where the model is `llama`; log-probabilities of tokens
            where it is `t5`.
        merges: The merges in order, where it is `gpt2`.
        special: Numbers of `bos`, `eos`, `unknown`, `padding`, `eot`, as far as there are any.
        add_bos: Whether a text begins with `bos`.
        add_eos: Whether it ends with `eos`.
        space_prefix: Whether a space is put before a text.
        doubled: Whether transformers puts none before a text that begins with one, where llama.cpp does.
        merge_spaces: Whether of several spaces one stays, where the model is `t5`.
        charsmap: sentencepiece's table of characters, where it is.
        chat_template: The template, in Jinja.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    space_prefix: bool = False
    doubled: bool = False
    merge_spaces: bool = False
    charsmap: bytes = b""
    chat_template: str | None = None

    def keys(self) -> dict[str, Any]:
        """What stands of it in the file."""
        found: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": self.types,
            "tokenizer.ggml.add_bos_token": self.add_bos,
            "tokenizer.ggml.add_eos_token": self.add_eos,
            "tokenizer.ggml.add_space_prefix": self.space_prefix,
            **{f"tokenizer.ggml.{name}_token_id": number for name, number in self.special.items()},
        }
        if self.scores:
            found["tokenizer.ggml.scores"] = self.scores
        if self.model == "t5":
            found["tokenizer.ggml.remove_extra_whitespaces"] = self.merge_spaces
        if self.charsmap:
            found["tokenizer.ggml.precompiled_charsmap"] = self.charsmap
        if self.merges:
            found["tokenizer.ggml.merges"] = self.merges
        if self.chat_template:
            found["tokenizer.chat_template"] = self.chat_template
        return found


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a model's folder.

    Args:
        folder: Where tokenizer.json is.
        size: Rows of the embedding; what the tokenizer has no token for is filled up.

    Raises:
        RecipeError: There is none, or llama.cpp has no equal of it.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"{folder}: there is no tokenizer.json, which GGUF is written from; "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
        )
    tokenizer = json.loads(file.read_text())
    model = tokenizer["model"]
    if model["type"] not in ("BPE", "Unigram"):
        raise RecipeError(
            f"{file}: a {model['type']} tokenizer; Prunus writes GGUF from a BPE, byte-level or with byte fallback, "
            "and from a Unigram. What works: the plain folder"
        )
    unigram = read_unigram(tokenizer, str(file)) if model["type"] == "Unigram" else None
    own = _own_settings(folder)
    facts: dict[str, Any] = {
        "special": _special(folder, tokenizer, own, size),
        "chat_template": _template(folder, own),
        **_ends(file, own),
    }
    metaspace = any(part["type"] == "Metaspace" for part in parts_of(tokenizer.get("pre_tokenizer")))
    if unigram is not None:
        tokens, types = _tokens(tokenizer, size, spaced=False)
        types[unigram.unknown] = UNKNOWN
        facts["special"]["unknown"] = unigram.unknown
        own_scores = [float(score) for _, score in model["vocab"]][:size]
        return Vocabulary(
            "t5", "default", tokens, types, own_scores + [_NEVER] * (size - len(own_scores)),
            space_prefix=unigram.space_prefix, merge_spaces=unigram.merge_spaces, charsmap=unigram.charsmap,
            doubled=metaspace and unigram.space_prefix and not unigram.merge_spaces, **facts,
        )  # fmt: skip
    if _is_byte_level(tokenizer):
        pre = byte_level(tokenizer, str(file))
        tokens, types = _tokens(tokenizer, size, spaced=False)
        return Vocabulary("gpt2", pre, tokens, types, merges=[" ".join(pair) for pair in merges_of(model)], **facts)
    if not model.get("byte_fallback"):
        raise RecipeError(f"{file}: a BPE that is neither byte-level nor falls back to bytes; llama.cpp has no such")
    prefix = space_prefix(tokenizer, str(file))
    tokens, types = _tokens(tokenizer, size, spaced=True)
    scores = _scores(model, tokens)
    return Vocabulary(
        "llama", "default", tokens, types, scores=scores, space_prefix=prefix, doubled=metaspace and prefix, **facts
    )


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE, in either of the two forms that files have them in."""
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]  # type: ignore[misc]


def numbers_of(model: Mapping[str, Any]) -> dict[str, int]:
    """The number of every token of a BPE or a Unigram."""
    vocab = model["vocab"]
    return dict(vocab) if isinstance(vocab, Mapping) else {text: i for i, (text, _) in enumerate(vocab)}


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    pre = tokenizer.get("pre_tokenizer") or {}
    return any(part.get("type") == "ByteLevel" for part in pre.get("pretokenizers", [pre]))


def _tokens(tokenizer: Mapping[str, Any], size: int, spaced: bool) -> tuple[list[str], list[int]]:
    """Every token and its kind, filled up to `size`."""
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
    """What sentencepiece would choose merges by: a token that is merged earlier has the higher score."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges_of(model)):
        ranks.setdefault(left + right, rank)
    return [-float(ranks[token]) if token in ranks else _NEVER if len(token) > 1 else 0.0 for token in tokens]


def _own_settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def _special(folder: Path, tokenizer: Mapping[str, Any], own: Mapping[str, Any], size: int) -> dict[str, int]:
    numbers = {
        **numbers_of(tokenizer["model"]),
        **{added["content"]: added["id"] for added in tokenizer["added_tokens"]},
    }
    config = json.loads((folder / "config.json").read_text())
    found: dict[str, int] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        token = own.get(f"{key}_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        number = numbers.get(text, config.get(f"{key}_token_id"))
        if isinstance(number, list):
            number = number[0] if number else None
        if isinstance(number, int) and 0 <= number < size:  # a config may name by default what is not there
            found[name] = number
    file = folder / "generation_config.json"
    ends = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    other = [end for end in (ends if isinstance(ends, list) else [ends]) if end not in (None, found.get("eos"))]
    return found | ({"eot": int(other[0])} if other and other[0] < size else {})


def _ends(file: Path, own: Mapping[str, Any]) -> dict[str, bool]:
    """Whether tokens are put before and behind a text: by trial, unless the tokenizer's settings say it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    before = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    after = len(whole) - before - len(bare)
    if before > 1 or after > 1:
        raise RecipeError(f"{file}: {before} tokens are put before a text and {after} behind it; llama.cpp puts one")
    said = {name: own.get(f"add_{name}_token") for name in ("bos", "eos")}
    return {
        "add_bos": bool(before) if said["bos"] is None else bool(said["bos"]),
        "add_eos": bool(after) if said["eos"] is None else bool(said["eos"]),
    }


def _template(folder: Path, own: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    found = own.get("chat_template")
    if isinstance(found, list):  # several by name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None
