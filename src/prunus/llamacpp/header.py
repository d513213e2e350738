"""What a GGUF file says of itself, before llama.cpp is asked to load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.errors import ModelError


@dataclass(frozen=True)
class Header:
    """What of a file is asked for here.

    Attributes:
        has_template: Whether it has a chat template.
        vocab_size: How many tokens there are.
        context: The longest text that its model was made for, in tokens.
    """

    has_template: bool
    vocab_size: int
    context: int


def read_header(file: Path) -> Header:
    """Read it from a file.

    Raises:
        ModelError: It is no GGUF file of a language model, or is cut short.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(file).fields
        architecture = fields["general.architecture"].contents()
        return Header(
            "tokenizer.chat_template" in fields,
            len(fields["tokenizer.ggml.tokens"].data),
            int(fields[f"{architecture}.context_length"].contents()),
        )
    except (KeyError, ValueError, IndexError):  # the reader slices what may not be there
        raise ModelError(f"{file}: no GGUF file of a language model, or one that is cut short") from None
