"""Options of insertion."""

from __future__ import annotations

from typing import ClassVar

from prunus.config import StepConfig


class InsertConfig(StepConfig):
    """Put a student of a text model back into the model of several parts that the text model was taken from."""

    kind: ClassVar[str] = "insert"
    revision: ClassVar[int] = 1
