"""Options of extraction."""

from __future__ import annotations

from typing import ClassVar

from prunus.config import StepConfig


class ExtractConfig(StepConfig):
    """Write the text model inside a model of several parts, such as one for vision and language, as a plain folder."""

    kind: ClassVar[str] = "extract"
    revision: ClassVar[int] = 1

    weights: bool = True
    """Write the weights; false writes config and tokenizer alone, which is enough to plan."""
