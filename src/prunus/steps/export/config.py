"""Options of export: which files a student becomes, and how they are held against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from prunus.config import Seed, StepConfig
from prunus.steps.export.targets import FORMATS

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(FORMATS)]


class ExportConfig(StepConfig):
    """Files that run on a device, each held against the student that it was made from."""

    kind: ClassVar[str] = "export"
    revision: ClassVar[int] = 2

    formats: tuple[Format, ...] = ()
    """What to write: GGUF for llama.cpp and what is built on it, at 32, 16, 8, 6, 5 or 4 bits; ONNX for
    onnxruntime-genai; int8 weights by torchao, for transformers."""
    check_tokens: int = Field(default=4096, ge=2)
    """Held-out tokens (made-up ones where no text is given) on which each file is held against transformers."""
    check_length: int = Field(default=512, ge=2)
    """Longest stretch that is read at once for it; shorter where the model's context is."""
    new_tokens: int = Field(default=48, ge=0)
    """Tokens that a float32 file and transformers both write on from a document's opening: they must be the same."""
    seed: Seed = 0
    """Seed of made-up tokens."""

    @field_validator("formats")
    @classmethod
    def _once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice")
        return formats
