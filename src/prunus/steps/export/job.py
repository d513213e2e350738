"""Input of the modules that write files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prunus.gguf.check import Reference
from prunus.models.folder import ModelFolder
from prunus.steps.export.config import ExportConfig


@dataclass(frozen=True)
class Job:
    """The model to export, and where to.

    Attributes:
        config: The options.
        folder: The model's folder.
        reference: The loaded model, and the text on which files are compared with it.
        out: The folder of the files.
        calibration: Text to measure an importance matrix on, [B, S]; None for none.
        imatrix: A file of an importance matrix; None for none.
        trained: The folder that the file of a format is made from in place of `folder`, by format.
    """

    config: ExportConfig
    folder: ModelFolder
    reference: Reference
    out: Path
    calibration: np.ndarray | None = None
    imatrix: Path | None = None
    trained: Mapping[str, ModelFolder] = field(default_factory=dict)
