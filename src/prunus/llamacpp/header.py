"""What a GGUF file says of itself, before llama.cpp is asked to load it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import ModelError

_FLOATS = (None, "F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Header:
    """What of a file is asked for here.

    Attributes:
        has_template: Whether it has a chat template.
        vocab_size: How many tokens there are.
        context: The longest text that its model was made for, in tokens.
        quantised: The type that most bytes of its weights are in, such as `Q4_K`, if they have fewer than 16 bits.
    """

    has_template: bool
    vocab_size: int
    context: int
    quantised: str | None = None


def read_header(file: Path) -> Header:
    """Read it from a file.

    Raises:
        ModelError: It is no GGUF file of a language model, or is cut short.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        fields = reader.fields
        architecture = fields["general.architecture"].contents()
        return Header(
            "tokenizer.chat_template" in fields,
            len(fields["tokenizer.ggml.tokens"].data),
            int(fields[f"{architecture}.context_length"].contents()),
            _quantised(reader),
        )
    except (KeyError, ValueError, IndexError):  # the reader slices what may not be there
        raise ModelError(f"{file}: no GGUF file of a language model, or one that is cut short") from None


def _quantised(reader: Any) -> str | None:
    nbytes: Counter[str] = Counter()
    for tensor in reader.tensors:
        nbytes[tensor.tensor_type.name] += int(tensor.n_bytes)
    most = max(nbytes, key=lambda name: nbytes[name], default=None)
    return most if most not in _FLOATS else None
