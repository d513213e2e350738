"""Options of unpack: how a GGUF file becomes a folder."""

from __future__ import annotations

from typing import ClassVar, Literal

from prunus.config import StepConfig

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class UnpackConfig(StepConfig):
    """A GGUF file as a plain Hugging Face folder."""

    kind: ClassVar[str] = "unpack"
    revision: ClassVar[int] = 1

    dtype: Dtype = "auto"
    """The type of the folder's weights; `auto` is the file's own where most of it is F32, F16 or BF16, and bfloat16 for
    quantised files."""
    check: bool = True
    """Hold the folder against the file in llama.cpp, where it is installed: tokens of texts, ends of an answer, and the
    logits of the folder, written again as float32, beside the file's."""
    weights: bool = True
    """Write the weights; without them config and tokenizer alone."""
