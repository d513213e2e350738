"""Options of export: file formats, and how each file is compared with the student."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from prunus.config import Seed, StepConfig
from prunus.steps.export.targets import FORMATS

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(FORMATS)]

PROOF_TOKENS = 512
"""Tokens on which a float32 file must give the model's logits. A fault shows on any text."""


class ExportConfig(StepConfig):
    """Files that run on a device, each verified against the student."""

    kind: ClassVar[str] = "export"
    revision: ClassVar[int] = 3

    formats: tuple[Format, ...] = ()
    """Formats to write: GGUF for llama.cpp and software built on it (32, 16, 8, 6, 5 or 4 bits); ONNX for
    onnxruntime-genai; torchao int8 weights for transformers."""
    check_tokens: int = Field(default=2048, ge=2)
    """Held-out tokens on which each file is compared with transformers; random tokens if no text is given. A float32
    file, which proves the export, is compared on the first 512."""
    check_length: int = Field(default=512, ge=2)
    """Longest window of this comparison, in tokens; the model's context if that is shorter."""
    new_tokens: int = Field(default=48, ge=0)
    """Tokens that a float32 file and transformers both generate after a document's opening. They must be identical."""
    seed: Seed = 0
    """Seed of the random tokens."""

    @field_validator("formats")
    @classmethod
    def _once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice")
        return formats
