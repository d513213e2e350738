"""Options of unpack, which converts a GGUF file to a folder."""

from __future__ import annotations

from typing import ClassVar, Literal

from prunus.config import StepConfig

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class UnpackConfig(StepConfig):
    """Convert a GGUF file to a plain Hugging Face folder."""

    kind: ClassVar[str] = "unpack"
    revision: ClassVar[int] = 1

    dtype: Dtype = "auto"
    """Type of the folder's weights. `auto`: the file's type if most of it is F32, F16 or BF16, else bfloat16."""
    check: bool = True
    """Compare the folder with the file in llama.cpp, if it is installed: tokens of texts, end-of-answer tokens, and
    logits (the folder's from a float32 file written from it)."""
    weights: bool = True
    """Write the weights. If false, write only config and tokenizer."""
