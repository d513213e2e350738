"""Byte-level BPE, by the name of llama.cpp's pre-tokenizer: the inverse of gguf/pretokenizers.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunus.errors import ModelError
from prunus.gguf.pretokenizers import BYTE_LEVEL

_ALIASES = {
    "gpt-2": ("phi-2", "mpt", "olmo", "exaone4", "gigachat", "a.x-4.0", "mellum", "modern-bert", "jais", "trillion",
              "granite-docling"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    "dbrx": ("smaug-bpe", "glm4", "chatglm-bpe"),
    "qwen2": ("deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"),
    "gpt-4o": ("llama4", "kanana2", "minimax-m2", "talkie"),
    "tekken": (),
}  # fmt: skip
"""Other names in llama.cpp (src/llama-vocab.cpp) with the same expressions and the same treatment of whole words."""

_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}
_WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")
_BOS_BY_ITSELF = ("llama-bpe", "tekken")
_SAME_EXPRESSION = {"dbrx": "llama-bpe"}
_NORMALISED = ("qwen2",)  # Qwen's tokenizers normalise to NFC first, which no key records


@dataclass(frozen=True)
class ByteLevel:
    """How a text is split into words.

    Attributes:
        name: llama.cpp's name; of several, the one that export uses.
        pieces: The steps of tokenizer.json.
        whole_words: Whether a word that is a token is not split, whatever its merges.
        composed: Whether characters are composed (NFC) first.
        add_bos: Whether llama.cpp adds `bos` before a text by default.
    """

    name: str
    pieces: dict[str, Any]
    whole_words: bool
    composed: bool
    add_bos: bool


def byte_level_of(pre: str | None, where: str) -> ByteLevel:
    """llama.cpp's pre-tokenizer of a name.

    Raises:
        ModelError: It has no known equivalent in transformers.
    """
    name = _NAMES.get(str(pre))
    if name is None:
        raise ModelError(
            f"{where}: tokenizer.ggml.pre is {pre!r:.40}; allowed: {', '.join(sorted(_NAMES))}. A guess could "
            "silently give other tokens"
        )
    expression = _SAME_EXPRESSION.get(name, name)
    chain = next(chain for chain, known in BYTE_LEVEL.items() if known == expression)
    steps = [_step(piece) for piece in chain]
    return ByteLevel(
        name,
        steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        name in _WHOLE_WORDS_FIRST,
        pre in _NORMALISED,
        name in _BOS_BY_ITSELF,
    )


def _step(piece: tuple[Any, ...]) -> dict[str, Any]:
    kind, value = piece
    if kind == "bytes":
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": value}
    if kind == "digits":
        return {"type": "Digits", "individual_digits": value}
    return {"type": "Split", "pattern": {"Regex": value}, "behavior": "Isolated", "invert": False}
