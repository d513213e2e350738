"""Basic facts from a GGUF file's header, without loading it in llama.cpp."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import ModelError
from prunus.llamacpp.reading import GgufFile, read_gguf

_FLOATS = (None, "F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Header:
    """Facts of a file.

    Attributes:
        has_template: Whether it has a chat template.
        vocab_size: Number of tokens.
        context: The model's context length, in tokens.
        quantised: The type of most bytes of its weights, such as `Q4_K`; None if that type has 16 bits or more.
    """

    has_template: bool
    vocab_size: int
    context: int
    quantised: str | None = None


def read_header(file: Path) -> Header:
    """Read the facts from a file.

    Raises:
        ModelError: It is not a GGUF file of a language model, or is truncated.
        RecipeError: The `gguf` package is not installed.
    """
    found = read_gguf(file)
    try:
        return Header(
            "tokenizer.chat_template" in found.keys,
            len(found.keys["tokenizer.ggml.tokens"]),
            int(found.keys[f"{found.architecture}.context_length"]),
            _quantised(found),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: not a GGUF file of a language model: it lacks {error}") from None


def _quantised(found: GgufFile) -> str | None:
    most = largest_type(found)
    return most if most not in _FLOATS else None


def largest_type(found: GgufFile) -> str | None:
    """The type of most bytes of a file; None if it has no tensors."""
    nbytes: Counter[str] = Counter()
    for tensor in found.tensors.values():
        nbytes[tensor.type_name] += tensor.nbytes
    return max(nbytes, key=lambda name: nbytes[name], default=None)
