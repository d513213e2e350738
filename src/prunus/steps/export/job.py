"""What those who write files are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.gguf.check import Reference
from prunus.models.folder import ModelFolder
from prunus.steps.export.config import ExportConfig


@dataclass(frozen=True)
class Job:
    """What is exported, and where to.

    Attributes:
        config: The options.
        folder: The model's.
        reference: What the model says, loaded.
        out: The folder of the files.
    """

    config: ExportConfig
    folder: ModelFolder
    reference: Reference
    out: Path
