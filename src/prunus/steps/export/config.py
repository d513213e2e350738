"""Options of export: file formats, and how each file is compared with the student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import ADDED, Location, Seed, StepConfig
from prunus.gguf.mixtures import IGNORE_MATRIX, NEED_MATRIX, TYPES
from prunus.steps.export.targets import FORMATS

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(FORMATS)]

IMATRIX_LENGTH = 512
"""Longest sequence of the calibration text, in tokens, as in llama-imatrix."""
PROOF_TOKENS = 512
"""Tokens on which a float32 file must give the model's logits. A fault shows on any text."""


class ExportConfig(StepConfig):
    """Files that run on a device, each verified against the student."""

    kind: ClassVar[str] = "export"
    revision: ClassVar[int] = 4

    formats: tuple[Format, ...] = ()
    """Formats to write: GGUF for llama.cpp and software built on it (32, 16, 8, 6, 5, 4, 3 or 2 bits); ONNX for
    onnxruntime-genai; torchao int8 weights for transformers."""
    check_tokens: int = Field(default=2048, ge=2)
    """Held-out tokens on which each file is compared with transformers; random tokens if no text is given. A float32
    file, which proves the export, is compared on the first 512."""
    check_length: int = Field(default=512, ge=2)
    """Longest window of this comparison, in tokens; the model's context if that is shorter."""
    new_tokens: int = Field(default=48, ge=0)
    """Tokens that a float32 file and transformers both generate after a document's opening. They must be identical."""
    seed: Seed = 0
    """Seed of the random tokens, and of the calibration text."""
    imatrix: Annotated[bool, ADDED] = False
    """Measure an importance matrix on the corpus: for every matrix of the layers, the mean square of each input. GGUF
    formats of 6 bits and fewer weight their rounding errors by it. It is written next to the files as `imatrix.gguf`,
    in llama.cpp's format. iq3_xs, iq3_xxs and iq2_m need one."""
    imatrix_tokens: Annotated[int, ADDED] = Field(default=32768, ge=512)
    """With `imatrix`: tokens of the corpus to measure it on, in sequences of up to 512."""
    imatrix_file: Annotated[Location | None, ADDED] = None
    """Take the importance matrix from this file instead, as `imatrix` or `llama-imatrix` wrote it (GGUF)."""

    @field_validator("formats")
    @classmethod
    def _once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice")
        return formats

    @model_validator(mode="after")
    def _one_matrix(self) -> ExportConfig:
        if self.imatrix and self.imatrix_file is not None:
            raise ValueError(
                f"imatrix_file: {self.imatrix_file}: not with imatrix, which measures one; allowed: either"
            )
        needing = [name for name in self.formats if name in NEED_MATRIX]
        if needing and not self.weighted:
            raise ValueError(
                f"formats: {', '.join(needing)}: llama.cpp needs an importance matrix for these; allowed: imatrix: "
                "true, or imatrix_file"
            )
        idle = all(name in IGNORE_MATRIX or name not in TYPES for name in self.formats)
        if self.formats and self.weighted and idle:
            raise ValueError(
                f"imatrix: changes none of {', '.join(self.formats)}; allowed: with a GGUF format of 6 bits or fewer"
            )
        return self

    @property
    def weighted(self) -> bool:
        """Whether files are made with an importance matrix."""
        return self.imatrix or self.imatrix_file is not None
