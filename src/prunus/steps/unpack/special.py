"""Special tokens, end tokens and templates of a GGUF file, as llama.cpp reads them: the inverse of gguf/special.py.

Defaults for missing keys are those of llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.errors import ModelError
from prunus.gguf.special import Special
from prunus.gguf.vocabulary import CONTROL

_MISSING = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {},  # llama.cpp's default is 11 for both, GPT-2's full stop, a normal token
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
}
"""Default ids of special tokens, by tokenizer.ggml.model."""

_ADDED = {"llama": (True, False), "gpt2": (False, False), "t5": (False, True)}
"""Default of whether `bos` is added before a text and `eos` after it, by tokenizer.ggml.model."""

_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
    "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip
"""Tokens at which llama.cpp ends an answer because of their text: ends of turns and documents, separators of code."""

_HARMONY = (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"), ("<|call|>", "<|flush|>"))
_PREFIX = "tokenizer.ggml."


def special_of(keys: dict[str, Any], tokens: Sequence[str], types: Sequence[int], bos: bool, where: str) -> Special:
    """Read special tokens and chat templates.

    Args:
        keys: The file's keys.
        tokens: Every token, by id.
        types: The kind of each token.
        bos: Whether the pre-tokenizer adds `bos` before a text by default.
        where: The file, for messages.

    Raises:
        ModelError: An id is invalid, or the tokenizer adds a separator between texts.
    """
    model = str(keys.get(f"{_PREFIX}model"))
    numbers: dict[str, int] = {}
    for name in ("bos", "eos", "eot", "eom", "unknown", "padding"):
        number = keys.get(f"{_PREFIX}{name}_token_id", _MISSING[model].get(name))
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise ModelError(f"{where}: {_PREFIX}{name}_token_id is {number!r:.40}; expected a token's id")
        if number is not None and 0 <= number < len(tokens):
            numbers[name] = number
    if keys.get(f"{_PREFIX}add_sep_token") and model != "llama":
        raise ModelError(f"{where}: {_PREFIX}add_sep_token is true: separators between texts are not supported")
    before, after = _ADDED[model]
    add = {"bos": keys.get(f"{_PREFIX}add_bos_token", before or bos), "eos": keys.get(f"{_PREFIX}add_eos_token", after)}
    for name, added in add.items():
        if added and name not in numbers:
            raise ModelError(f"{where}: {name} is added to each text, but {_PREFIX}{name}_token_id is not a token")
    ends = _ends(numbers, tokens, types)
    return Special(numbers, ends, bool(add["bos"]), bool(add["eos"]), _templates(keys, where))


def _ends(numbers: dict[str, int], tokens: Sequence[str], types: Sequence[int]) -> tuple[int, ...]:
    """Every token that ends an answer, `eos` first."""
    named = [numbers[name] for name in ("eos", "eot", "eom") if name in numbers]
    of_text = {text: number for number, text in enumerate(tokens) if types[number] == CONTROL}
    ends = [text for text in _ENDS if text in of_text]
    if any(set(pair) <= set(ends) for pair in _HARMONY):
        ends = [text for text in ends if text != "<|end|>"]  # in this format it ends a message, not the answer
    if "<|tool_response>" in ends:
        ends = [text for text in ends if text != "</s>"]
    return tuple(dict.fromkeys([*named, *(of_text[text] for text in ends)]))


def _templates(keys: dict[str, Any], where: str) -> dict[str, str]:
    """Chat templates by name."""
    names = keys.get("tokenizer.chat_templates", [])
    found = {str(name): keys.get(f"tokenizer.chat_template.{name}") for name in names}
    usual = keys.get("tokenizer.chat_template")
    found |= {"default": usual} if usual is not None else {}
    for name, text in found.items():
        if not isinstance(text, str):
            raise ModelError(f"{where}: the chat template {name!r:.40} is not a text")
    return {name: str(text) for name, text in found.items()}
